import validator from "validator";

export default () => [validator.isEmail("a@b.de"), validator.isIBAN("DE89370400440532013000"), validator.isURL("http://h"), validator.isISO8601("2026-01-02"), validator.escape("<a href='x'>"), validator.isStrongPassword("aB3$efgh"), validator.isCreditCard("4242424242424242")];
