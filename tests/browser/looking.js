/* What an eye would see on a page: texts with their colours and what lies beneath, what is cut, what covers what.
 *
 * Everything is measured in the page as the browser has laid it out; `looking.py` says what is a fault. Boxes are
 * quadrilaterals, so that turned labels are compared as they stand.
 */
window.looking = (() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const known = new Map();

  /** Any CSS colour as [red, green, blue, alpha], of which alpha is from 0 to 1. */
  function colour(text) {
    if (!known.has(text)) {
      canvas.canvas.width = canvas.canvas.height = 1;
      canvas.fillStyle = text;
      canvas.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
      known.set(text, [red, green, blue, alpha / 255]);
    }
    return known.get(text);
  }

  const over = (front, alpha, back) => back.map((value, k) => alpha * front[k] + (1 - alpha) * value);

  function luminance(rgb) {
    const [red, green, blue] = rgb.map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  }

  /** WCAG 2.2: from 1, the same colour, to 21, black on white. */
  function contrast(one, other) {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  }

  const parents = function* (element) {
    for (let at = element; at; at = at.parentElement) yield at;
  };

  let styles = new Map();
  function style(element) {
    if (!styles.has(element)) styles.set(element, getComputedStyle(element));
    return styles.get(element);
  }

  const opacity = (element) => {
    let all = 1;
    for (const at of parents(element)) all *= Number(style(at).opacity);
    return all;
  };

  /** The colour that the backgrounds of an element and of all around it come to. */
  let grounds = new Map();
  function ground(element) {
    if (!element) return colour("canvas").slice(0, 3);
    if (!grounds.has(element)) {
      const [red, green, blue, alpha] = colour(style(element).backgroundColor);
      const behind = alpha === 1 ? [0, 0, 0] : ground(element.parentElement);
      grounds.set(element, over([red, green, blue], alpha, behind));
    }
    return grounds.get(element);
  }

  /** The painted shapes of an SVG in the order of painting, each with its box and what it paints. */
  let painted = new Map();
  function shapes(svg) {
    if (!painted.has(svg)) {
      const found = [];
      for (const element of svg.querySelectorAll("path, rect, circle, ellipse, polygon, line, polyline")) {
        if (element.closest("defs, clipPath, mask, symbol")) continue;
        const box = element.getBoundingClientRect();
        const { fill, stroke, fillOpacity, strokeOpacity, strokeWidth, visibility, display } = style(element);
        if (visibility === "hidden" || display === "none" || !(box.width + box.height)) continue;
        const all = opacity(element);
        const paint = (text, share) => {
          if (text === "none" || text.startsWith("url")) return null;
          const [red, green, blue, alpha] = colour(text);
          return alpha * share * all > 0 ? { rgb: [red, green, blue], alpha: alpha * share * all } : null;
        };
        const inside = paint(fill, Number(fillOpacity));
        const edge = parseFloat(strokeWidth) > 0 ? paint(stroke, Number(strokeOpacity)) : null;
        if (inside || edge) found.push({ element, box, inside, edge });
      }
      painted.set(svg, found);
    }
    return painted.get(svg);
  }

  /** What lies beneath a point of an SVG: its page's ground, and every shape that is painted there before `until`. */
  function beneath(svg, x, y, until, besides = null) {
    let seen = ground(svg);
    for (const { element, box, inside } of shapes(svg)) {
      if (until && !(until.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_PRECEDING)) break;
      if (besides && element.matches(besides)) continue;
      if (!inside || x < box.left || x > box.right || y < box.top || y > box.bottom) continue;
      const at = new DOMPoint(x, y).matrixTransform(element.getScreenCTM().inverse());
      if (element.isPointInFill(at)) seen = over(inside.rgb, inside.alpha, seen);
    }
    return seen;
  }

  const visible = (element) =>
    element.checkVisibility({ opacityProperty: true, visibilityProperty: true, contentVisibilityAuto: true });

  /** The part of the page that an element's scrolling and clipping parents leave of it. */
  let windows = new Map();
  function window_of(element) {
    if (!element) return { left: -1e9, top: -1e9, right: 1e9, bottom: 1e9 };
    if (!windows.has(element)) {
      let left = window_of(element.parentElement);
      const { overflowX, overflowY, clipPath } = style(element);
      // A viewport's own overflow is the document's, and an SVG's edge is looked at by itself.
      if ((overflowX !== "visible" || overflowY !== "visible" || clipPath !== "none") && element !== document.body
          && element !== document.documentElement && !(element instanceof SVGElement)) {
        const box = element.getBoundingClientRect();
        left = {
          left: Math.max(left.left, box.left), top: Math.max(left.top, box.top),
          right: Math.min(left.right, box.right), bottom: Math.min(left.bottom, box.bottom),
        };
      }
      windows.set(element, left);
    }
    return windows.get(element);
  }

  const corners = ({ left, top, right, bottom }) => [[left, top], [right, top], [right, bottom], [left, bottom]];

  /** An SVG text's own box, turned as it stands; above and below letters a fifth of it is empty. */
  function turned(element) {
    const { x, y, width, height } = element.getBBox(), matrix = element.getScreenCTM();
    const at = (a, b) => { const { x, y } = new DOMPoint(a, b).matrixTransform(matrix); return [x, y]; };
    const [top, bottom] = [y + 0.1 * height, y + 0.9 * height];
    return [at(x, top), at(x + width, top), at(x + width, bottom), at(x, bottom)];
  }

  /** How large a unit of an SVG's element is on the screen. */
  const scale = (element) => { const { a, b } = element.getScreenCTM(); return Math.hypot(a, b); };

  /** Every visible text: what it says, where, its contrast, and the parts of it that its parents cut off. */
  function texts() {
    styles = new Map(); grounds = new Map(); painted = new Map(); windows = new Map();
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const drawn = new Set();
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      const parent = node.parentElement, said = node.data.replace(/\s+/g, " ").trim();
      if (!said || parent.closest("script, style, title, desc, template, noscript, option, textarea")) continue;
      const text = parent.closest("svg text");
      if (text) { if (drawn.has(text)) continue; drawn.add(text); }
      if (!visible(parent)) continue;
      const own = style(parent), svg = text?.ownerSVGElement;
      let whole = svg; while (whole?.ownerSVGElement) whole = whole.ownerSVGElement;
      const range = document.createRange(); range.selectNodeContents(text ?? node);
      const boxes = text ? [text.getBoundingClientRect()] : [...range.getClientRects()];
      const left = window_of(parent);
      for (const box of boxes) {
        const seen = {
          left: Math.max(box.left, left.left), top: Math.max(box.top, left.top),
          right: Math.min(box.right, left.right), bottom: Math.min(box.bottom, left.bottom),
        };
        // nothing of it is to be seen, or it is there for screen readers alone
        if (seen.right - seen.left < 2 || seen.bottom - seen.top < 2) continue;
        const [red, green, blue, alpha] = colour(text ? own.fill : own.color);
        const behind = text ? beneath(whole, (box.left + box.right) / 2, (box.top + box.bottom) / 2, text) : ground(parent);
        const strength = alpha * opacity(parent) * (text ? Number(own.fillOpacity) : 1);
        const edge = whole?.getBoundingClientRect();
        const height = seen.bottom - seen.top;
        found.push({
          node: text ?? node, said: text ? text.textContent.trim() : said, drawn: Boolean(text), where: name(parent), size: parseFloat(own.fontSize) * (text ? scale(text) : 1),
          contrast: contrast(over([red, green, blue], strength, behind), behind),
          quad: text ? turned(text) : corners({ ...seen, top: seen.top + 0.15 * height, bottom: seen.bottom - 0.15 * height }),
          outside: edge ? Math.max(edge.left - box.left, edge.top - box.top, box.right - edge.right, box.bottom - edge.bottom) : 0,
        });
      }
    }
    for (const field of document.querySelectorAll("input[placeholder]")) {
      if (!visible(field) || field.value) continue;
      const [red, green, blue, alpha] = colour(getComputedStyle(field, "::placeholder").color), behind = ground(field);
      found.push({
        said: field.placeholder, drawn: false, where: name(field), size: parseFloat(style(field).fontSize),
        contrast: contrast(over([red, green, blue], alpha * opacity(field), behind), behind), quad: null, outside: 0,
      });
    }
    return found;
  }

  /** A selector that a person finds it by. */
  function name(element) {
    const parts = [];
    for (const at of parents(element)) {
      if (at === document.body) break;
      const kind = typeof at.className === "string" ? at.className : at.className.baseVal;
      parts.unshift(at.id ? `#${at.id}` : at.localName + (kind ? "." + kind.trim().split(/\s+/).join(".") : ""));
      if (at.id || parts.length === 4) break;
    }
    const chart = element.ownerSVGElement && element.closest("figure[id]");
    return (chart ? `#${chart.id} ` : "") + parts.slice(chart ? -2 : 0).join(" > ");
  }

  const axes = (quad) => [0, 1].map((k) => {
    const [[x, y], [u, v]] = [quad[k], quad[k + 1]], length = Math.hypot(u - x, v - y) || 1;
    return [(u - x) / length, (v - y) / length];
  });

  /** How far two quadrilaterals reach into each other, in pixels; nothing where a line parts them. */
  function depth(one, other) {
    let least = Infinity;
    for (const [x, y] of [...axes(one), ...axes(other)]) {
      const [a, b] = [one, other].map((quad) => quad.map(([u, v]) => u * x + v * y));
      least = Math.min(least, Math.min(Math.max(...a), Math.max(...b)) - Math.max(Math.min(...a), Math.min(...b)));
    }
    return least;
  }

  /** Pairs of texts that stand on one another. */
  function overlaps(all) {
    const high = all.filter(({ quad }) => quad).map((text) => {
      const rows = text.quad.map(([, y]) => y);
      return { ...text, top: Math.min(...rows), bottom: Math.max(...rows) };
    }).sort((a, b) => a.top - b.top);
    const found = [];
    high.forEach((text, k) => {
      for (let next = k + 1; next < high.length && high[next].top < text.bottom; next++)
        if (text.node !== high[next].node && depth(text.quad, high[next].quad) > 1) found.push([text.said, high[next].said, text.where]);
    });
    return found;
  }

  /** Marks of charts: the contrast of each with the ground that marks lie on; grids and cells of heat maps are none. */
  function marks(selector) {
    const found = [];
    for (const svg of document.querySelectorAll("svg")) {
      if (svg.ownerSVGElement || !visible(svg)) continue;
      for (const { element, box, inside, edge } of shapes(svg)) {
        if (!element.matches(selector)) continue;
        const [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2], behind = beneath(svg, x, y, element, selector);
        const seen = [inside, edge].filter(Boolean).map(({ rgb, alpha }) => contrast(over(rgb, alpha, behind), behind));
        found.push({ where: name(element), said: element.getAttribute("aria-label") ?? "", contrast: Math.max(...seen), x, y });
      }
    }
    return found;
  }

  /** Texts that a parent cuts off without a way to scroll to the rest. */
  function cut() {
    const found = [];
    for (const element of document.body.querySelectorAll("*")) {
      if (element instanceof SVGElement || !element.textContent.trim() || !visible(element)) continue;
      const { overflowX, overflowY } = style(element), hides = (flow) => flow === "hidden" || flow === "clip";
      if (element.clientWidth < 2 || element.clientHeight < 2) continue; // for screen readers
      const whole = element.textContent.replace(/\s+/g, " ").trim();
      if (style(element).textOverflow === "ellipsis" && element.title.includes(whole)) continue; // told when pointed at
      if ((hides(overflowX) && element.scrollWidth > element.clientWidth + 1)
          || (hides(overflowY) && element.scrollHeight > element.clientHeight + 1))
        found.push([name(element), whole.slice(0, 80)]);
    }
    return found;
  }

  /** What sticks out of the window at the side, unless a parent scrolls. */
  function beyond() {
    const found = [];
    for (const element of document.body.querySelectorAll("*")) {
      if (element.ownerSVGElement || !visible(element)) continue;
      const box = element.getBoundingClientRect(), left = window_of(element.parentElement);
      if (Math.min(box.right, left.right) > document.documentElement.clientWidth + 1 || Math.max(box.left, left.left) < -1) found.push(name(element));
    }
    return { wide: document.documentElement.scrollWidth, found: found.slice(0, 8) };
  }

  return {
    look(selector) {
      const seen = texts();
      return {
        ground: ground(document.body), beyond: beyond(), cut: cut(), overlaps: overlaps(seen), marks: marks(selector),
        texts: seen.map(({ node, quad, ...rest }) => rest),
      };
    },
  };
})();
