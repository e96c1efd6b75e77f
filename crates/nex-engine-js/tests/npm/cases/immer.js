import { enablePatches, produce, produceWithPatches } from "immer";

enablePatches();
export default () => {
  const before = { list: [{ a: 1 }, { a: 2 }], other: {} };
  const [after, patches] = produceWithPatches(before, (draft) => { draft.list[0].a = 5; draft.list.push({ a: 3 }); });
  return [before.list.length, after, patches, after.other === before.other, Object.isFrozen(produce(before, (draft) => { draft.x = 1; }))];
};
