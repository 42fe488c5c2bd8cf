/// The page at `/docs`: it reads `/openapi.json` and can try each call. No asset comes from outside, no inline script.
enum DocsPage {
    static let html = """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Client Manager API</title>
        <link rel="stylesheet" href="/docs/style.css">
        </head>
        <body>
        <header>
        <h1>Client Manager API</h1>
        <label>Bearer token <input id="token" type="password" autocomplete="off" spellcheck="false"></label>
        <label>Filter <input id="filter" type="search" autocomplete="off"></label>
        </header>
        <main id="operations"><p>Reading <a href="/openapi.json">/openapi.json</a> …</p></main>
        <script src="/docs/app.js"></script>
        </body>
        </html>
        """

    static let style = """
        :root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
        body { margin: 0 auto; max-width: 70rem; padding: 0 1rem 4rem; }
        header { display: flex; flex-wrap: wrap; gap: 1rem; align-items: baseline; position: sticky; top: 0;
          background: Canvas; padding: .6rem 0; border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); }
        h1 { font-size: 1.3rem; margin: 0 auto 0 0; }
        h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
        details { border: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); border-radius: 6px; margin: .3rem 0;
          padding: .3rem .7rem; }
        summary { cursor: pointer; display: flex; gap: .8rem; align-items: baseline; }
        summary code { font-weight: 600; }
        .method { min-width: 4.2rem; font: 600 .8rem ui-monospace, monospace; }
        .right { margin-left: auto; font-size: .8rem; opacity: .7; }
        table { border-collapse: collapse; margin: .5rem 0; }
        td, th { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; }
        textarea { width: 100%; min-height: 9rem; font: 13px ui-monospace, monospace; box-sizing: border-box; }
        pre { overflow: auto; max-height: 24rem; padding: .6rem; border-radius: 6px;
          background: color-mix(in srgb, CanvasText 8%, Canvas); font: 13px ui-monospace, monospace; }
        input { font: inherit; }
        button { font: inherit; padding: .25rem 1rem; }
        """

    static let script = #"""
        "use strict";
        const token = document.getElementById("token");
        const filter = document.getElementById("filter");
        const list = document.getElementById("operations");

        function element(name, properties, ...children) {
          const node = Object.assign(document.createElement(name), properties || {});
          node.append(...children);
          return node;
        }

        // An optional member may be null as well: ["string", "null"].
        function typeOf(schema) { return [].concat(schema.type)[0]; }

        function example(schema) {
          if (!schema) return null;
          if (schema.enum) return schema.enum[0];
          switch (typeOf(schema)) {
            case "string": return "";
            case "integer": case "number": return schema.minimum || 0;
            case "boolean": return false;
            case "array": return [example(schema.items)];
            case "object": {
              const value = {};
              const required = schema.required || [];
              for (const [name, member] of Object.entries(schema.properties || {}))
                if (required.includes(name)) value[name] = example(member);
              return value;
            }
            default: return null;
          }
        }

        function describe(schema) {
          if (!schema) return "";
          if (schema.enum) return schema.enum.filter(choice => choice !== null).join(" | ");
          if (typeOf(schema) === "array") return "array of " + describe(schema.items);
          return typeOf(schema) || "any";
        }

        function members(schema) {
          if (!schema || typeOf(schema) !== "object" || !schema.properties) return [];
          const required = schema.required || [];
          return Object.entries(schema.properties).map(([name, member]) => element("tr", {},
            element("td", {}, element("code", {}, name + (required.includes(name) ? "" : "?"))),
            element("td", {}, describe(member)), element("td", {}, member.description || "")));
        }

        function operation(path, method, item) {
          const inputs = [];
          const rows = (item.parameters || []).map(parameter => {
            const input = element("input", { placeholder: describe(parameter.schema) });
            inputs.push({ parameter, input });
            return element("tr", {}, element("td", {}, element("code", {}, parameter.name)),
              element("td", {}, parameter.in), element("td", {}, input),
              element("td", {}, (parameter.schema && parameter.schema.description) || ""));
          });
          const content = item.requestBody && Object.entries(item.requestBody.content)[0];
          const schema = content && content[1].schema;
          const body = content && element("textarea", { spellcheck: false });
          if (body && typeOf(schema) === "object") body.value = JSON.stringify(example(schema), null, 2);
          const output = element("pre", { hidden: true });
          const button = element("button", { type: "button" }, "Try it");
          button.addEventListener("click", async () => {
            let target = path;
            const query = new URLSearchParams();
            for (const { parameter, input } of inputs) {
              if (parameter.in === "path")
                target = target.replace("{" + parameter.name + "}", encodeURIComponent(input.value));
              else if (input.value !== "") query.append(parameter.name, input.value);
            }
            if (query.toString()) target += "?" + query;
            const headers = {};
            if (token.value) headers["Authorization"] = "Bearer " + token.value;
            if (content) headers["Content-Type"] = content[0];
            output.hidden = false;
            output.textContent = "…";
            const stop = new AbortController();
            const limit = setTimeout(() => stop.abort(), 60000);
            try {
              const answer = await fetch(target, { method: method.toUpperCase(), headers, signal: stop.signal,
                body: body ? body.value : undefined });
              let text = await answer.text();
              try { text = JSON.stringify(JSON.parse(text), null, 2); } catch (error) { /* not JSON: shown as it is */ }
              output.textContent = answer.status + " " + answer.statusText + "\n\n" + text;
            } catch (error) {
              output.textContent = String(error);
            } finally {
              clearTimeout(limit);
            }
          });
          const answers = Object.entries(item.responses || {}).map(([status, response]) => element("tr", {},
            element("td", {}, element("code", {}, status)), element("td", {}, response.description || "")));
          const details = element("details", {},
            element("summary", {}, element("span", { className: "method" }, method.toUpperCase()),
              element("code", {}, path), element("span", {}, item.summary || ""),
              element("span", { className: "right" }, item["x-right"] || "")));
          if (rows.length) details.append(element("table", {}, ...rows));
          if (body) details.append(element("table", {}, ...members(schema)), body);
          details.append(element("table", {}, ...answers), button, output);
          details.dataset.text = (method + " " + path + " " + (item.summary || "")).toLowerCase();
          return details;
        }

        async function start() {
          const answer = await fetch("/openapi.json");
          const document_ = await answer.json();
          const areas = new Map();
          for (const [path, item] of Object.entries(document_.paths))
            for (const [method, details] of Object.entries(item)) {
              const area = (details.tags || ["other"])[0];
              if (!areas.has(area)) areas.set(area, []);
              areas.get(area).push(operation(path, method, details));
            }
          list.replaceChildren();
          for (const area of [...areas.keys()].sort())
            list.append(element("section", {}, element("h2", {}, area), ...areas.get(area)));
        }

        filter.addEventListener("input", () => {
          const wanted = filter.value.toLowerCase();
          for (const details of document.querySelectorAll("details"))
            details.hidden = !details.dataset.text.includes(wanted);
          for (const section of document.querySelectorAll("section"))
            section.hidden = ![...section.querySelectorAll("details")].some(details => !details.hidden);
        });
        start().catch(error => { list.textContent = "Could not read /openapi.json: " + error; });
        """#
}
