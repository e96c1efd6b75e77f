import { concatMap, delay, firstValueFrom, from, interval, map, of, scan, take, toArray } from "rxjs";

export default async () => [
  await firstValueFrom(from([1, 2, 3]).pipe(concatMap((n) => of(n * 2).pipe(delay(1))), scan((sum, n) => sum + n, 0), toArray())),
  await firstValueFrom(interval(1).pipe(map((n) => n * n), take(4), toArray())),
];
