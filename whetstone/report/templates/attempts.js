// The viewer. Filters work on typed arrays, one code for each attempt; texts come from scripts that are loaded when one
// of their problems is looked at. A model's text is only ever set as text, never as HTML.
"use strict";
const whetstone = (() => {
  const SIGNS = { correct: "✓", wrong: "✗", unparsed: "∅" };
  const USED = { "taught as an example": 1, "chosen in a pair": 2, "rejected in a pair": 4 };
  const ROW = 54;
  const $ = (id) => document.getElementById(id);
  const create = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value !== null && value !== false) made.setAttribute(name, value);
    }
    made.append(...children.filter((one) => one !== null && one !== undefined));
    return made;
  };
  const bytes = (text) => Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const numbers = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  const array = (text, kind) => new numbers[kind](bytes(text).buffer);
  const unpack = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  };

  let data; // what index.js brought
  let facets; // [{key, names, codes (by attempt)}]
  let shown = new Uint32Array(0); // what passes the filters: attempts, or places in `pairs`
  let selected = -1; // place in `shown`
  const state = { kind: "attempts", chosen: new Map(), query: "", matches: null };
  const chunks = new Map(), arriving = new Map();

  // --- data ---------------------------------------------------------------------------------------------------------
  const chunkOf = (problem) => {
    let low = 0, high = data.chunks.length - 2;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.chunks[middle] <= problem) low = middle; else high = middle - 1;
    }
    return low;
  };
  const load = (number) => {
    if (chunks.has(number)) return Promise.resolve(chunks.get(number));
    if (!arriving.has(number)) {
      arriving.set(number, new Promise((resolve, reject) => {
        const source = `attempts/${String(number).padStart(3, "0")}.js`;
        const script = create("script", { src: source });
        script.addEventListener("error", () => reject(new Error(`${source} is missing beside this page`)));
        script.resolve = resolve;
        loading[number] = script;
        document.head.append(script);
      }));
    }
    return arriving.get(number);
  };
  const loading = {};
  const chunk = async (number, text) => {
    const content = await unpack(text);
    chunks.set(number, content);
    loading[number].resolve(content);
    loading[number].remove();
  };
  const textsOf = async (attempt) => {
    const problem = data.problem[attempt], number = chunkOf(problem), own = await load(number);
    const at = attempt - data.starts[number], about = problem - data.chunks[number];
    const found = {};
    for (const name of Object.keys(own)) if (own[name].length === own.text.length) found[name] = own[name][at];
    for (const name of ["question", "gold", "options"]) found[name] = own[name][about];
    return found;
  };
  const attemptOf = (item) => (state.kind === "pairs" ? data.pairs.chosen[item] : item);
  const named = (key, attempt) => { const one = facets.find((f) => f.key === key); return one ? one.names[one.codes[attempt]] : "none"; };

  const prepare = (content) => {
    data = content;
    data.ids = data.ids.split("\n");
    data.problems = data.problems.split("\n");
    for (const [name, kind] of [["problem", "u4"], ["turn", "u2"], ["sample", "u2"], ["used", "u1"], ["chunks", "u4"], ["starts", "u4"]]) {
      data[name] = array(data[name], kind);
    }
    const epochs = data.pairs.map((one) => one.epoch), total = { epoch: [], chosen: [], rejected: [] };
    data.pairs.forEach((one, place) => {
      const chosen = array(one.chosen, "u4"), rejected = array(one.rejected, "u4");
      for (let i = 0; i < chosen.length; i++) { total.epoch.push(place); total.chosen.push(chosen[i]); total.rejected.push(rejected[i]); }
    });
    data.pairs = { epochs, epoch: total.epoch, chosen: Uint32Array.from(total.chosen), rejected: Uint32Array.from(total.rejected) };
    const n = data.problem.length;
    facets = Object.entries(data.facets).map(([key, own]) => {
      const codes = array(own.codes, "u2");
      if (own.by !== "problem") return { key, names: own.names, codes };
      const wide = new Uint16Array(n);
      for (let i = 0; i < n; i++) wide[i] = codes[data.problem[i]];
      return { key, names: own.names, codes: wide };
    });
    const order = ["model", "split", "verdict", "strategy"], rank = (one) => (order.includes(one.key) ? order.indexOf(one.key) : 9);
    facets.sort((a, b) => rank(a) - rank(b));
    const last = Math.max(...new Set(data.turn));
    facets.splice(4, 0, { key: "turn", names: Array.from({ length: last + 1 }, (_, p) => String(p)), codes: data.turn });
    facets = facets.filter((one) => one.names.length > 1);
    facets.push({ key: "used", names: Object.keys(USED), bits: Object.values(USED), codes: data.used });
    facets.push({ key: "trained", names: data.pairs.epochs, pairs: true, codes: Uint8Array.from(data.pairs.epoch) });
  };

  // --- filters ------------------------------------------------------------------------------------------------------
  const filter = () => {
    performance.mark("filter");
    const pairs = state.kind === "pairs", n = pairs ? data.pairs.chosen.length : data.problem.length;
    const kept = new Uint32Array(n), active = [];
    let found = 0;
    for (const facet of facets) facet.counts = new Uint32Array(facet.names.length);
    const live = facets.filter((facet) => pairs || !facet.pairs);
    for (const facet of live) {
      const wanted = state.chosen.get(facet.key);
      if (!wanted || !wanted.size) continue;
      const allowed = new Uint8Array(256 * 256);
      if (facet.bits) { for (let code = 0; code < 256; code++) for (const w of wanted) if (code & facet.bits[w]) allowed[code] = 1; }
      else for (const w of wanted) allowed[w] = 1;
      active.push({ facet, allowed });
    }
    const count = (facet, code) => {
      if (!facet.bits) facet.counts[code]++;
      else for (let b = 0; b < facet.bits.length; b++) if (code & facet.bits[b]) facet.counts[b]++;
    };
    for (let item = 0; item < n; item++) {
      const attempt = pairs ? data.pairs.chosen[item] : item;
      if (state.matches && !state.matches[attempt] && !(pairs && state.matches[data.pairs.rejected[item]])) continue;
      let failed = null, failures = 0;
      for (const { facet, allowed } of active) {
        if (!allowed[facet.codes[facet.pairs ? item : attempt]]) { failed = facet; if (++failures > 1) break; }
      }
      if (failures === 0) {
        kept[found++] = item;
        for (const facet of live) count(facet, facet.codes[facet.pairs ? item : attempt]);
      } else if (failures === 1) count(failed, failed.codes[failed.pairs ? item : attempt]);
    }
    shown = kept.subarray(0, found);
    performance.measure("filtered", "filter");
  };
  const search = async () => {
    const query = state.query.trim().toLowerCase();
    if (!query) { state.matches = null; return; }
    const matches = new Uint8Array(data.problem.length), total = data.chunks.length - 1;
    for (let number = 0; number < total; number++) {
      if (!chunks.has(number)) $("found").textContent = `reading ${number + 1} of ${total}…`;
      const own = await load(number);
      own.lower ||= { text: own.text.map((one) => one.toLowerCase()), question: own.question.map((one) => one.toLowerCase()) };
      if (query !== state.query.trim().toLowerCase()) return; // typed on meanwhile
      const asked = own.lower.question.map((one) => one.includes(query));
      for (let i = 0; i < own.text.length; i++) {
        const attempt = data.starts[number] + i;
        matches[attempt] = asked[data.problem[attempt] - data.chunks[number]] || own.lower.text[i].includes(query)
          || data.ids[attempt].toLowerCase().includes(query);
      }
    }
    state.matches = matches;
  };

  // --- drawing ------------------------------------------------------------------------------------------------------
  const drawFacets = () => {
    const titles = { model: "checkpoint", split: "problems", turn: "attempt of the episode", used: "in training", trained: "trained epoch" };
    $("facets").replaceChildren(...facets.filter((facet) => state.kind === "pairs" || !facet.pairs).map((facet) => {
      const options = facet.names.map((name, code) => {
        const box = create("input", { type: "checkbox", onchange: (event) => choose(facet.key, code, event.target.checked) });
        facet.boxes ||= []; facet.boxes[code] = box;
        const label = name in SIGNS ? `${SIGNS[name]} ${name}` : name;
        return create("label", { title: name }, box, create("span", {}, label), create("span", {}));
      });
      facet.labels = options;
      return create("fieldset", {}, create("legend", {}, titles[facet.key] || facet.key), create("div", { class: "options" }, ...options));
    }));
  };
  const drawCounts = () => {
    for (const facet of facets) {
      if (!facet.labels) continue;
      const wanted = state.chosen.get(facet.key);
      facet.labels.forEach((label, code) => {
        const checked = Boolean(wanted && wanted.has(code)), n = facet.counts[code];
        facet.boxes[code].checked = checked;
        label.lastChild.textContent = n.toLocaleString("en");
        label.classList.toggle("empty", n === 0);
        label.hidden = n === 0 && !checked && !everUsed(facet, code);
      });
    }
    const n = shown.length, all = state.kind === "pairs" ? data.pairs.chosen.length : data.problem.length;
    $("found").textContent = `${n.toLocaleString("en")} of ${all.toLocaleString("en")}`;
  };
  const everUsed = (facet, code) => {
    if (!facet.total) {
      facet.total = new Uint32Array(facet.names.length);
      for (const one of facet.codes) {
        if (!facet.bits) facet.total[one]++;
        else facet.bits.forEach((bit, b) => { if (one & bit) facet.total[b]++; });
      }
    }
    return facet.total[code] > 0;
  };
  let scheduled = 0;
  const drawRows = () => {
    const list = $("list"), rows = $("rows");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    const made = [], missing = new Set();
    for (let place = first; place < last; place++) {
      const attempt = attemptOf(shown[place]), problem = data.problem[attempt], number = chunkOf(problem);
      const own = chunks.get(number);
      if (!own) missing.add(number);
      const strategy = named("strategy", attempt), verdict = named("verdict", attempt), family = named("family", attempt);
      const about = own ? own.question[problem - data.chunks[number]] : data.problems[problem];
      const rejected = state.kind === "pairs" ? data.pairs.rejected[shown[place]] : null;
      made.push(create("div", {
        class: "row", role: "option", id: `row-${place}`, style: `top: ${place * ROW}px`, "aria-selected": String(place === selected),
        "aria-posinset": place + 1, "aria-setsize": shown.length, onclick: () => select(place),
      }, create("div", {},
        create("span", { class: `sign ${verdict}`, title: verdict }, SIGNS[verdict]),
        create("span", { class: "tag" }, named("model", attempt)), tag(strategy),
        rejected === null ? null : create("span", {}, "over "), rejected === null ? null : tag(named("strategy", rejected)),
        family === "none" ? null : create("span", { class: "muted" }, family)),
      create("div", { class: "snippet" }, about)));
    }
    rows.replaceChildren(...made);
    list.setAttribute("aria-activedescendant", selected >= first && selected < last ? `row-${selected}` : "");
    if (missing.size) {
      clearTimeout(scheduled);
      scheduled = setTimeout(() => Promise.all([...missing].map(load)).then(drawRows, fail), 60);
    }
  };
  const tag = (strategy) => {
    const facet = facets.find((one) => one.key === "strategy"), place = facet ? [...facet.names].sort().indexOf(strategy) : -1;
    return create("span", { class: `tag s${place}` }, strategy);
  };
  const fail = (error) => { $("detail").replaceChildren(create("p", { class: "wrong" }, error.message)); };

  const outcome = (attempt, own, strategy) => {
    const error = named("error", attempt);
    const said = own.answer === null
      ? ["no answer", error === "none" ? "" : `: ${error}`]
      : [strategy === "pot" ? "the program's answer is " : "the answer read is ", create("code", {}, own.answer), own.rule ? ` (${own.rule})` : ""];
    return [create("p", { class: "outcome" }, ...said, ", the gold is ", create("code", {}, own.gold)),
      own.output === null ? null : create("pre", { class: "printed", "aria-label": "output of the program" }, own.output)];
  };
  const marked = (text) => {
    const query = state.query.trim().toLowerCase();
    if (!query) return [text];
    const parts = [], lower = text.toLowerCase();
    let from = 0;
    for (let at = lower.indexOf(query); at >= 0; at = lower.indexOf(query, from)) {
      parts.push(text.slice(from, at), create("mark", {}, text.slice(at, at + query.length)));
      from = at + query.length;
    }
    return [...parts, text.slice(from)];
  };
  const sheet = (attempt, own, heading) => {
    const strategy = named("strategy", attempt), verdict = named("verdict", attempt);
    return create("div", { class: `sheet ${verdict}` },
      create("div", { style: "margin-bottom: .6rem" }, heading ? create("strong", {}, `${heading} `) : null,
        create("span", { class: `sign ${verdict}` }, SIGNS[verdict]), create("span", { class: "tag" }, verdict),
        create("span", { class: "tag" }, named("model", attempt)), tag(strategy),
        own.probability === null ? null : create("span", { class: "muted" }, `chosen with probability ${own.probability.toFixed(2)}`)),
      strategy === "pot" ? create("pre", {}, ...marked(own.text.trim())) : create("div", { class: "prose" }, ...marked(own.text.trim())),
      ...outcome(attempt, own, strategy));
  };
  const siblings = (attempt) => {
    const problem = data.problem[attempt], groups = new Map();
    let first = attempt, end = attempt;
    while (first > 0 && data.problem[first - 1] === problem) first--;
    while (end < data.problem.length && data.problem[end] === problem) end++;
    for (let one = first; one < end; one++) {
      const key = named("model", one);
      groups.set(key, [...(groups.get(key) || []), one]);
    }
    const rows = [...groups].map(([model, own]) => create("tr", {}, create("th", { scope: "row" }, model), create("td", {},
      ...own.map((one) => {
        const strategy = named("strategy", one), verdict = named("verdict", one);
        return create("button", { type: "button", "aria-current": String(one === attempt), onclick: () => jump(one),
          title: `attempt ${data.turn[one]}, sample ${data.sample[one]}`, "aria-label": `${model}, ${strategy}, ${verdict}, attempt ${data.turn[one]}` },
        create("span", { class: `sign ${verdict}` }, SIGNS[verdict]), strategy, data.turn[one] > 1 ? ` ${data.turn[one]}.` : "");
      }))));
    return create("table", { class: "grid" }, create("tbody", {}, ...rows));
  };
  const facts = (attempt, own) => {
    const given = {
      id: data.ids[attempt], problem: data.problems[data.problem[attempt]], family: named("family", attempt), level: named("level", attempt),
      "attempt of the episode": data.turn[attempt], sample: data.sample[attempt], finish: own.finish_reason,
      "tokens (prompt, completion)": own.prompt_tokens === null ? null : `${own.prompt_tokens}, ${own.completion_tokens}`,
      "log-probability": own.logprob === null ? null : own.logprob.toFixed(4), seed: own.seed, "prompt hash": own.prompt_hash, engine: own.engine,
      "in training": Object.entries(USED).filter(([, bit]) => data.used[attempt] & bit).map(([name]) => name).join(", ") || "no",
    };
    const known = Object.entries(given).filter(([, value]) => value !== null && value !== "none");
    return create("dl", { class: "facts" }, ...known.flatMap(([name, value]) => [create("dt", {}, name), create("dd", {}, String(value))]));
  };
  const drawDetail = async () => {
    const detail = $("detail");
    if (selected < 0) {
      detail.replaceChildren(create("p", { class: "muted" }, shown.length ? "Nothing is selected." : "Nothing passes these filters."));
      return;
    }
    const item = shown[selected], place = selected, attempt = attemptOf(item), pair = state.kind === "pairs";
    const own = await textsOf(attempt), other = pair ? await textsOf(data.pairs.rejected[item]) : null;
    if (place !== selected || item !== shown[selected]) return; // went on meanwhile
    const options = own.options ? create("p", {}, own.options.map((one, i) => `${String.fromCharCode(65 + i)}. ${one}`).join("   ")) : null;
    detail.replaceChildren(
      create("div", { class: "bar" },
        create("span", { class: "place" }, `${(selected + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`),
        create("button", { class: "plain", type: "button", onclick: () => go(-1), "aria-label": "Previous" }, "‹"),
        create("button", { class: "plain", type: "button", onclick: () => go(1), "aria-label": "Next" }, "›"),
        create("button", { class: "plain", type: "button", id: "copy", onclick: copy }, "Copy link")),
      create("h2", {}, ...marked(own.question)), options ?? "",
      create("p", { class: "muted" }, `gold ${own.gold} · ${data.problems[data.problem[attempt]]}${pair ? ` · trained ${data.pairs.epochs[data.pairs.epoch[item]]}` : ""}`),
      pair ? create("div", { class: "sides" }, sheet(attempt, own, "chosen"), sheet(data.pairs.rejected[item], other, "rejected")) : sheet(attempt, own, ""),
      create("h3", {}, "All attempts on this problem"), siblings(attempt),
      create("h3", {}, "Where it comes from"), facts(attempt, own));
    detail.scrollTop = 0;
  };

  // --- moving about -------------------------------------------------------------------------------------------------
  const address = () => {
    const given = new URLSearchParams();
    if (state.kind === "pairs") given.set("list", "pairs");
    for (const [key, codes] of state.chosen) {
      const facet = facets.find((one) => one.key === key);
      for (const code of [...codes].sort((a, b) => a - b)) given.append(key, facet.names[code]);
    }
    if (state.query) given.set("q", state.query);
    if (selected >= 0) {
      given.set("at", data.ids[attemptOf(shown[selected])]);
      if (state.kind === "pairs") given.set("over", data.ids[data.pairs.rejected[shown[selected]]]);
    }
    return `#${given}`;
  };
  const remember = () => history.replaceState(null, "", address());
  const reveal = () => {
    const list = $("list"), top = selected * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
  };
  const select = (place) => {
    selected = Math.max(-1, Math.min(place, shown.length - 1));
    if (selected >= 0) reveal();
    drawRows();
    remember();
    drawDetail().catch(fail);
  };
  const go = (step) => select(Math.max(0, selected + step));
  const goProblem = (step) => {
    if (selected < 0) return select(0);
    const here = data.problem[attemptOf(shown[selected])];
    let place = selected;
    while (place >= 0 && place < shown.length && data.problem[attemptOf(shown[place])] === here) place += step;
    if (place < 0 || place >= shown.length) return;
    if (step < 0) { // to the first attempt of that problem
      const there = data.problem[attemptOf(shown[place])];
      while (place > 0 && data.problem[attemptOf(shown[place - 1])] === there) place--;
    }
    select(place);
  };
  const placeOf = (attempt, over) => {
    for (let i = 0; i < shown.length; i++) {
      if (attemptOf(shown[i]) === attempt && (over === undefined || data.pairs.rejected[shown[i]] === over)) return i;
    }
    return -1;
  };
  const jump = (attempt) => { // to any attempt; where the filters hide it, they give way
    if (state.kind === "pairs") { state.kind = "attempts"; drawFacets(); }
    if (placeOf(attempt) < 0) { state.chosen.clear(); state.query = ""; state.matches = null; $("search").value = ""; }
    refresh(attempt);
  };
  const refresh = (keep, over) => {
    filter();
    $("rows").style.height = `${shown.length * ROW}px`; // before anything scrolls
    drawCounts();
    document.querySelectorAll(".switch button").forEach((one) => one.setAttribute("aria-pressed", String(one.value === state.kind)));
    const place = keep === undefined ? -1 : placeOf(keep, over);
    if (place < 0) $("list").scrollTop = 0;
    select(place < 0 ? 0 : place);
  };
  const current = () => (selected >= 0 ? attemptOf(shown[selected]) : undefined);
  const choose = (key, code, on) => {
    const wanted = state.chosen.get(key) || new Set();
    if (on) wanted.add(code); else wanted.delete(code);
    if (wanted.size) state.chosen.set(key, wanted); else state.chosen.delete(key);
    refresh(current());
  };
  const clear = () => {
    state.chosen.clear(); state.query = ""; state.matches = null; $("search").value = "";
    refresh(current());
  };
  const copy = async () => {
    const button = $("copy");
    try { await navigator.clipboard.writeText(location.href); button.textContent = "Copied"; }
    catch { button.textContent = "The address bar has it"; }
  };
  const open = async () => { // what the address asks for
    const given = new URLSearchParams(location.hash.slice(1));
    state.kind = given.get("list") === "pairs" ? "pairs" : "attempts";
    state.chosen.clear();
    for (const [key, value] of given) {
      const facet = facets.find((one) => one.key === key), code = facet ? facet.names.indexOf(value) : -1;
      if (code >= 0) state.chosen.set(key, (state.chosen.get(key) || new Set()).add(code));
    }
    state.query = given.get("q") || "";
    $("search").value = state.query;
    drawFacets();
    if (state.query) await search(); else state.matches = null;
    const at = given.has("at") ? data.ids.indexOf(given.get("at")) : -1;
    const over = given.has("over") ? data.ids.indexOf(given.get("over")) : undefined;
    refresh(at < 0 ? undefined : at, over);
    if (at >= 0 && current() !== at) jump(at);
  };

  const index = async (text) => {
    prepare(await unpack(text));
    if (matchMedia("(max-width: 62rem)").matches) $("filters").open = false;
    await open();
    addEventListener("hashchange", () => open().catch(fail));
    $("list").addEventListener("scroll", () => requestAnimationFrame(drawRows), { passive: true });
    new ResizeObserver(drawRows).observe($("list"));
    $("clear").addEventListener("click", clear);
    $("help").addEventListener("click", () => $("keys").showModal());
    document.querySelectorAll(".switch button").forEach((one) => one.addEventListener("click", () => {
      state.kind = one.value; drawFacets(); refresh();
    }));
    let typing = 0;
    $("search").addEventListener("input", (event) => {
      state.query = event.target.value;
      clearTimeout(typing);
      typing = setTimeout(() => search().then(() => refresh(current()), fail), 150);
    });
    addEventListener("keydown", keys);
    document.documentElement.dataset.ready = "yes";
    performance.measure("ready");
  };
  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    if (event.target.matches("input[type=search]")) { if (event.key === "Escape" || event.key === "Enter") $("list").focus(); return; }
    const inside = event.target.closest("#detail, #filters") && event.key.length > 1; // arrows scroll and move there
    const does = {
      j: () => go(1), ArrowDown: () => go(1), k: () => go(-1), ArrowUp: () => go(-1),
      "]": () => goProblem(1), "[": () => goProblem(-1), Home: () => select(0), End: () => select(shown.length - 1),
      PageDown: () => go(10), PageUp: () => go(-10),
      "/": () => $("search").focus(), c: copy, x: clear, "?": () => $("keys").showModal(),
    }[event.key];
    if (!does || inside) return;
    event.preventDefault();
    does();
  };
  return { index, chunk };
})();
