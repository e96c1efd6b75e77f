import { parse } from "csv-parse/browser/esm/sync";

export default () => parse('id,name\n1,"a, b"\n2,"say ""hi"""\n', { columns: true, cast: true });
