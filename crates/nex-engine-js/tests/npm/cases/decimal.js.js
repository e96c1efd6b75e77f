import Decimal from "decimal.js";

export default () => [new Decimal(2).sqrt().toString(), Decimal.exp(1).toFixed(15), new Decimal("123.456").toDecimalPlaces(1, Decimal.ROUND_UP).toString()];
