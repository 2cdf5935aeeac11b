// Vercel's AI SDK: Responses by default, chat completions, text completions.
import { openai } from "@ai-sdk/openai";
import { Output, ToolLoopAgent, generateText, streamText, tool } from "ai";
import { z } from "zod";
import * as cells from "./cells.mjs";

const { ASKS, MODEL, all, assert, cell } = cells;
const tools = {};
for (const [name, [description, parameter]] of Object.entries(cells.TOOLS))
  tools[name] = tool({
    description,
    inputSchema: z.object({ [parameter]: z.string() }),
    execute: (given) => cells.called(name, given[parameter]),
  });
const market = Output.object({ schema: z.object({ title: z.string(), risks: z.array(z.string()) }) });

for (const [route, model] of [
  ["Responses", openai(MODEL)],
  ["chat", openai.chat(MODEL)],
]) {
  const agent = new ToolLoopAgent({ model, tools });

  await cell("plain", 1, route, async () => {
    assert((await generateText({ model, prompt: "Describe tides." })).text, "no text");
  });

  await cell("stream", 1, route, async () => {
    const parts = await all(streamText({ model, prompt: "Describe tides." }).textStream);
    assert(parts.join(""), "no text");
  });

  await cells.toolCells(route, async (prompt) => (await agent.generate({ prompt })).text);

  await cell("streamed tool call", 2, route, async () => {
    const parts = await all((await agent.stream({ prompt: ASKS })).fullStream);
    const kinds = parts.map((part) => part.type);
    assert(!kinds.slice(0, kinds.indexOf("tool-call")).includes("text-start"), "text before the call");
  });

  await cell("structured output", 1, route, async () => {
    const prompt = "Describe the market for tides.";
    assert((await generateText({ model, prompt, output: market })).output.title, "no title");
  });

  await cell("second turn", 2, route, async () => {
    const messages = [{ role: "user", content: "Describe tides." }];
    messages.push(...(await generateText({ model, messages })).response.messages);
    messages.push({ role: "user", content: "And what do they cost?" });
    assert((await generateText({ model, messages })).text, "no text");
  });
}

for (const [name, run] of [
  ["plain", async (given) => (await generateText(given)).text],
  ["stream", async (given) => (await all(streamText(given).textStream)).join("")],
])
  await cell(name, 1, "text completions", async () => {
    const given = { model: openai.completion(MODEL), prompt: "Describe tides.", maxRetries: 0 };
    assert(await run({ ...given, maxOutputTokens: 32 }), "no text");
  });
