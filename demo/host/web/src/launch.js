import { Trouble } from "./trouble.js";

// launch reads which account the link means: /?lang=fr&auto=1#NAME. The data
// of the account come from the demonstration, not from the link.
export function launch() {
  const query = new URLSearchParams(location.search);
  const name = location.hash.slice(1);
  return {
    name,
    lang: query.get("lang") === "en" ? "en" : "fr",
    auto: query.get("auto") === "1",
  };
}

export async function account(name) {
  if (!/^[a-z0-9-]+$/.test(name)) throw new Trouble("link");
  const answer = await fetch(`session/${name}.json`).catch(() => null);
  if (!answer?.ok) throw new Trouble("link");
  return answer.json();
}
