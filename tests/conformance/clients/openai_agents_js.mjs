// OpenAI's Agents SDK for Node: Responses by default, and chat completions.
import {
  Agent,
  OpenAIChatCompletionsModel,
  MemorySession,
  run,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import * as cells from "./cells.mjs";

const { MODEL, all, assert, cell } = cells;
setTracingDisabled(true);
const tools = Object.entries(cells.TOOLS).map(([name, [description, parameter]]) =>
  tool({
    name,
    description,
    parameters: z.object({ [parameter]: z.string() }),
    execute: (given) => cells.called(name, given[parameter]),
  }),
);
const outputType = z.object({ title: z.string(), risks: z.array(z.string()) });

for (const [route, model] of [
  ["Responses", MODEL],
  ["chat", new OpenAIChatCompletionsModel(new OpenAI(), MODEL)],
]) {
  const plain = new Agent({ name: "helper", model });
  const withTools = new Agent({ name: "helper", model, tools });

  await cell("plain", 1, route, async () => {
    assert((await run(plain, "Describe tides.")).finalOutput, "no answer");
  });

  await cell("stream", 1, route, async () => {
    const result = await run(plain, "Describe tides.", { stream: true });
    const parts = await all(result.toTextStream());
    assert(parts.join(""), "no text");
  });

  await cells.toolCells(route, async (asked) => (await run(withTools, asked)).finalOutput);

  await cell("structured output", 1, route, async () => {
    const typed = new Agent({ name: "helper", model, outputType });
    const answer = await run(typed, "Describe the market for tides.");
    assert(answer.finalOutput.title, "no title");
  });

  await cell("second turn", 2, route, async () => {
    const session = new MemorySession();
    await run(plain, "Describe tides.", { session });
    assert((await run(plain, "And what do they cost?", { session })).finalOutput, "no answer");
  });
}

await cell("second turn, previousResponseId", 2, "Responses", async () => {
  const helper = new Agent({ name: "helper", model: MODEL });
  const first = await run(helper, "Describe tides.");
  const again = { previousResponseId: first.lastResponseId };
  assert((await run(helper, "And what do they cost?", again)).finalOutput, "no answer");
});
