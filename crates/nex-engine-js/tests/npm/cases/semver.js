import semver from "semver";

export default () => [semver.satisfies("1.4.2", "^1.2 || ~2.0.1"), semver.inc("1.2.3-rc.1", "prerelease"), semver.maxSatisfying(["1.0.0", "1.9.1", "2.0.0"], "1.x"), semver.coerce("v3.4")?.version];
