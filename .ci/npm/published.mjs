// Of what GitHub publishes, what the tests need: the paths of the API that we use, and the webhooks' example payloads.
// node published.mjs FOLDER: from FOLDER/node_modules to FOLDER/github-api.json and FOLDER/github-webhooks.json.
import { readFileSync, writeFileSync } from "node:fs";

const PATHS = [
  "/app/installations/{installation_id}/access_tokens",
  "/repos/{owner}/{repo}/issues/comments/{comment_id}",
  "/repos/{owner}/{repo}/issues/{issue_number}/comments",
  "/repos/{owner}/{repo}/pulls",
  "/repos/{owner}/{repo}/pulls/{pull_number}",
  "/repos/{owner}/{repo}/statuses/{sha}",
  "/user",
];

const folder = process.argv[2];
const read = (file) => JSON.parse(readFileSync(`${folder}/node_modules/@octokit/${file}`, "utf8"));
const write = (file, value) => writeFileSync(`${folder}/${file}`, JSON.stringify(value));

// With all of its paths the proxy takes 20 seconds to start, with these two.
const { openapi, info, servers, paths, components } = read("openapi/generated/api.github.com.json");
const api = { openapi, info, servers, paths: {}, components: {} };
const keep = (value) => {
  for (const [key, inner] of Object.entries(value ?? {})) {
    if (key !== "$ref") {
      if (typeof inner === "object") keep(inner);
      continue;
    }
    const [, , kind, name] = inner.split("/");
    api.components[kind] ??= {};
    if (!(name in api.components[kind])) {
      api.components[kind][name] = components[kind][name];
      keep(components[kind][name]);
    }
  }
};
for (const path of PATHS) {
  if (!paths[path]) throw new Error(`GitHub's description has no path ${path}`);
  api.paths[path] = paths[path];
  keep(paths[path]);
}
write("github-api.json", api);

const webhooks = read("webhooks-examples/api.github.com/index.json");
write("github-webhooks.json", Object.fromEntries(webhooks.map(({ name, examples }) => [name, examples])));
