"""Where models come from, a file each: ``timm:resnet18`` is the source ``timm`` and a name that it knows."""
