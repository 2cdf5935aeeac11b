// What the scripts for Node share; the same as cells.py, which explains it.

export const MODEL = "gpt-4o-mini";
export const ASKS = "What is the weather in Seoul?";
export const DEPENDENT = "Find the user id of Ana, then get the orders of that user.";
export const FAN_OUT = "What is the weather in Seoul and in Busan?";
const USER_ID = "u-4711";
const TIMEOUT_MS = 120_000;

let calls = [];

// name -> description, the name of the one parameter, what is done
export const TOOLS = {
  get_weather: ["Get the weather of a city.", "city", (city) => `sunny, 24 degrees in ${city}`],
  find_user: ["Find the user id of a person.", "name", () => `{"user_id": "${USER_ID}"}`],
  get_orders: ["Get the orders of a user.", "user_id", () => '[{"order": 31}]'],
};

export function called(name, argument) {
  calls.push(`${name}(${argument})`);
  return TOOLS[name][2](argument);
}

export function assert(holds, otherwise) {
  if (!holds) throw new Error(otherwise);
}

function assertCalls(...expected) {
  assert(String(calls) === String(expected), `calls ${calls}`);
}

export function askedForWeather(answer) {
  assertCalls("get_weather(Seoul)");
  assert(answer.includes("24 degrees"), `answer ${answer}`);
}

export function askedForOrders() {
  assertCalls("find_user(Ana)", `get_orders(${USER_ID})`);
}

export function askedForBoth() {
  calls.sort();
  assertCalls("get_weather(Busan)", "get_weather(Seoul)");
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
    timer = setTimeout(() => reject(new Error("no end after 120 s")), TIMEOUT_MS);
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
