import Big from "big.js";

export default () => [new Big("0.1").plus("0.2").toString(), new Big(1).div(3).toFixed(10), new Big("1e400").times(2).toExponential()];
