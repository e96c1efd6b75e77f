import { all, create } from "mathjs";

const math = create(all);
export default () => [math.evaluate("2 inch to cm").toString(), math.derivative("x^2 + x", "x").toString(), math.inv([[1, 2], [3, 4]]), math.evaluate("det([-1, 2; 3, 1])"), math.bignumber("0.1").add("0.2").toString()];
