import { XMLBuilder, XMLParser, XMLValidator } from "fast-xml-parser";

export default () => [new XMLParser({ ignoreAttributes: false }).parse('<a x="1"><b>2</b><b>&lt;3&gt;</b><c/></a>'), new XMLBuilder({ ignoreAttributes: false }).build({ a: { "@_x": 1, b: [1, 2] } }), XMLValidator.validate("<a><b></a>").err?.code];
