// Calls the function of a bundle as the engine does, and prints the JSON of what it returns: what is expected of the engine.
import { pathToFileURL } from "node:url";

globalThis.self = globalThis;
const { default: called } = await import(pathToFileURL(process.argv[2]));
console.log(JSON.stringify(await called("npm", new Uint8Array())));
