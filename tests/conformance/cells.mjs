// What the scripts for Node share; the same as cells.py, which explains it.

export const MODEL = "gpt-4o-mini";
export const ASKS = "What is the weather in Seoul?";
const DEPENDENT = "Find the user id of Ana, then get the orders of that user.";
const FAN_OUT = "What is the weather in Seoul and in Busan?";
const USER_ID = "u-4711";
const TIMEOUT_MS = 300_000;

let calls = [];

// name -> description, the name of the one parameter, what is done
export const TOOLS = {
  get_weather: ["Get the weather of a city.", "city", (city) => `sunny, 24 degrees in ${city}`],
  find_user: ["Find the user id of a person.", "name", () => `{"user_id": "${USER_ID}"}`],
  get_orders: ["Get the orders of a user.", "user_id", () => '[{"order": 31, "item": "bicycle"}]'],
};

export function called(name, argument) {
  calls.push(`${name}(${argument})`);
  return TOOLS[name][2](argument);
}

export function assert(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

export async function all(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

async function lab(what) {
  const root = process.env.OPENAI_BASE_URL.replace("/v1", "");
  return (await fetch(`${root}/lab/${what}`)).json();
}

export async function cell(name, requests, route, run) {
  calls = [];
  const before = (await lab("mark")).mark;
  let reason = null;
  let timer;
  const tooLong = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error("no end after 300 s")), TIMEOUT_MS);
  });
  try {
    await Promise.race([run(), tooLong]);
  } catch (error) {
    console.error(error);
    reason = String(error);
  }
  clearTimeout(timer);
  const took = (await lab(`spans?since=${before}`)).spans.length;
  if (reason === null && requests !== null && took !== requests)
    reason = `${took} requests, not ${requests}`;
  console.log(JSON.stringify({ route, cell: name, requests: took, reason }));
}

export async function toolCells(route, ask) {
  for (const [name, requests, question, expected, told] of [
    ["tool loop", 2, ASKS, ["get_weather(Seoul)"], "24 degrees"],
    ["dependent calls", 3, DEPENDENT, ["find_user(Ana)", `get_orders(${USER_ID})`], "bicycle"],
    ["fan-out", 2, FAN_OUT, ["get_weather(Busan)", "get_weather(Seoul)"], "24 degrees"],
  ])
    await cell(name, requests, route, async () => {
      const answer = await ask(question);
      if (name === "fan-out") calls.sort();
      assert(String(calls) === String(expected), `calls ${calls}`);
      assert(answer.includes(told), `answer ${answer}`);
    });
}
