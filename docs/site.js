// Search over the headings and the text of all pages. It takes the place of the fuzzy search that comes with the layout: here
// every word that was typed has to occur, whole words count more than beginnings, titles more than text.
(() => {
  "use strict";
  const words = (text) => text.toLowerCase().normalize("NFKD").match(/[\p{L}\p{N}_]+/gu) || [];
  const score = (word, text) => {  // 3: the whole word, 2: a beginning, 1: inside
    let best = 0;
    for (const w of text) {
      if (w === word) return 3;
      if (w.startsWith(word)) best = 2;
      else if (!best && word.length > 3 && w.includes(word)) best = 1;
    }
    return best;
  };
  const parts = { title: 6, section: 8, text: 1 };

  window.Fuse = class {
    constructor(entries) {
      this.entries = (entries.length ? entries : window.searchEntries || []).map((item) => {
        const found = { item };
        for (const part in parts) found[part] = words(item[part]);
        found.names = words(item.names);
        return found;
      });
    }

    search(query, { limit }) {
      const typed = words(query);
      const hits = [];
      for (const entry of this.entries) {
        let total = 0;
        for (const word of typed) {
          let best = entry.names.includes(word) ? 24 : 0;
          for (const part in parts) best += parts[part] * score(word, entry[part]);
          if (!best) { total = 0; break; }
          total += best + Math.min(2, entry.text.filter((w) => w === word).length / 4);
        }
        if (total && [entry.title, entry.section].some((part) => part.join(" ") === typed.join(" "))) total += entry.item.section ? 10 : 40;
        // where a thing is explained comes before its entry in the reference, a page before its parts
        if (total) hits.push({ item: entry.item, total: total * (entry.item.href.startsWith("reference/") ? 0.5 : 1) + (entry.item.section ? 0 : 3) });
      }
      return hits.sort((a, b) => b.total - a.total).slice(0, limit);
    }
  };

  // the menu is longer than the screen: show the part where the reader is
  addEventListener("DOMContentLoaded", () => {
    const menu = document.getElementById("quarto-sidebar"), here = menu && menu.querySelector(".sidebar-link.active");
    if (here) menu.scrollTop = here.offsetTop - menu.clientHeight / 3;
  });

  // a page opened as a file may not fetch its neighbours, but it may load a script
  if (location.protocol === "file:") {
    const script = document.createElement("script");
    script.src = document.querySelector('meta[name="smalldocs:offset"]').content + "search-data.js";
    document.head.append(script);
  }
})();
