// What tests ask a page of JupyterLab, as window.agentlab; installed before the page's own scripts.
window.agentlab = (() => {
  const all = (what, where = document) => [...where.querySelectorAll(what)];
  const cells = () => all(".jp-Notebook .jp-Cell");
  const prompts = () => all(".jp-CodeCell .jp-InputPrompt").map((prompt) => prompt.textContent);

  // Every progress bar that was shown: one that ends is gone before anybody can look, so each
  // change of its width is noted.
  const bars = new Map();
  const note = (bar) => {
    const cell = cells().indexOf(bar.closest(".jp-Cell"));
    if (!bars.has(bar) && cell < 0) return;
    bars.set(bar, { cell, ...bars.get(bar), percent: parseFloat(bar.style.width) || 0 });
  };
  new MutationObserver((changes) => {
    for (const { target, addedNodes } of changes) {
      if (target.matches?.(".widget-hprogress .progress-bar") || bars.has(target)) note(target);
      for (const node of addedNodes) {
        if (node instanceof Element) all(".widget-hprogress .progress-bar", node).forEach(note);
      }
    }
  }).observe(document, {
    subtree: true,
    childList: true,
    attributes: true,
    attributeFilter: ["style"],
  });

  let seen, since; // what the prompts were, and from when on

  return {
    bars: () => [...bars.values()],

    // Another notebook, beside what is open; a page that loads JupyterLab anew takes five seconds.
    open: async (path) => {
      bars.clear();
      await window.jupyterapp.commands.execute("docmanager:open", { path });
    },
    close: () => window.jupyterapp.shell.currentWidget.dispose(), // asks nobody whether to save

    count: () => cells().length,
    cleared: () => !all(".jp-OutputArea-output").length && prompts().every((p) => p === "[ ]:"),

    // All cells have run, or one has failed and those behind it were called off.
    settled: () => /\d/.test(prompts()[0]) && !prompts().includes("[*]:"),

    // No prompt has changed for so long.
    stuck: (ms) => {
      const now = prompts().join();
      if (now !== seen) [seen, since] = [now, Date.now()];
      return Date.now() - since > ms;
    },

    drawn: () =>
      all(".jp-Notebook img").every((picture) => picture.complete) &&
      all(".jp-Notebook code.language-mermaid").length === 0,

    // Of each fold, if what is inside can be seen before its line is clicked, and after. In one go:
    // a click by the mouse, which scrolls there first, takes a tenth of a second of the processor.
    folds: () =>
      all(".jp-RenderedMarkdown details").map((fold) => {
        const inside = fold.querySelector(":scope > :not(summary)");
        const before = inside.checkVisibility();
        fold.querySelector("summary").click();
        return [before, inside.checkVisibility() && inside.clientHeight > 0];
      }),

    cells: () =>
      cells().map((cell) => ({
        prompt: cell.querySelector(".jp-InputPrompt").textContent,
        alarms: all('[data-mime-type="application/vnd.jupyter.stderr"]', cell).map(
          (output) => output.textContent,
        ),
        pictures: all('[data-mime-type="image/png"] img', cell).map(
          (picture) => picture.naturalWidth && picture.clientWidth * picture.clientHeight,
        ),
        diagrams: all(".jp-RenderedMermaid img", cell).map(
          (picture) => picture.naturalWidth && picture.clientWidth * picture.clientHeight,
        ),
        broken: all(".jp-RenderedMermaid.jp-mod-warning, .jp-OutputArea-output.jupyter-widgets", cell)
          .map((output) => output.textContent)
          .filter((text) => /error/i.test(text)),
      })),
  };
})();
