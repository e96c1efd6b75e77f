import { load } from "cheerio/slim";

export default () => { const $ = load("<ul><li class=a>one</li><li>two &amp; three</li></ul>"); $("li.a").attr("id", "x").append("<b>!</b>"); return [$("li").map((_, li) => $(li).text()).get(), $("ul").html()]; };
