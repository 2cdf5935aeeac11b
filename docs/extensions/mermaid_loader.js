// Stands in for JupyterLab's loader of chunks, for Mermaid alone. BUILD is filled in by mermaid.py:
// the chunks' files, those wanted at once, Mermaid's own module, and the modules that are shared.
const [files, entry, main, shared] = BUILD;
const folder = new URL(".", document.currentScript.src);
const factories = {}, modules = {}, loading = {};

function need(number) {
  const id = shared[number] ?? number;
  if (!(id in modules)) {
    const module = (modules[id] = { exports: {}, children: [], paths: [] });
    factories[id].call(module.exports, module, module.exports, need);
  }
  return modules[id].exports;
}
need.g = globalThis;
need.o = (object, name) => Object.hasOwn(object, name);
need.d = (exports, getters) => {
  for (const [name, get] of Object.entries(getters)) {
    if (!need.o(exports, name)) Object.defineProperty(exports, name, { enumerable: true, get });
  }
};
need.r = (exports) => Object.defineProperty(exports, "__esModule", { value: true });
need.n = (module) => {
  const get = module?.__esModule ? () => module.default : () => module;
  need.d(get, { a: get });
  return get;
};
need.nmd = need.hmd = (module) => module;
need.e = (number) =>
  (loading[number] ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    Object.assign(script, { src: new URL(files[number], folder), onload: done, onerror: failed });
    document.head.append(script);
  }));

self.rspackChunk_jupyterlab_application_top = {
  push: ([, defined]) => Object.assign(factories, defined),
};
Promise.all(entry.map(need.e)).then(() => {
  const mermaid = need(main).default;
  mermaid.initialize({ startOnLoad: false, securityLevel: "strict" });
  return mermaid.run({ querySelector: "pre.mermaid" });
});
