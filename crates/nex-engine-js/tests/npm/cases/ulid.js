import { decodeTime, isValid, monotonicFactory, ulid } from "ulid";

export default () => { const next = monotonicFactory(); const [a, b] = [next(5), next(5)]; return [isValid(ulid()), a < b, decodeTime(ulid(1_700_000_000_000))]; };
