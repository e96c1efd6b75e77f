import { gzipSync, strFromU8, strToU8, unzipSync, zipSync, gunzipSync } from "fflate";

export default () => { const zip = zipSync({ "a.txt": strToU8("hello"), d: { "b.txt": strToU8("x".repeat(1000)) } }); return [Object.keys(unzipSync(zip)), strFromU8(unzipSync(zip)["a.txt"]), gunzipSync(gzipSync(strToU8("y".repeat(99)))).length]; };
