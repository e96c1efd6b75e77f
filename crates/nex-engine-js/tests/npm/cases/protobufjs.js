import protobuf from "protobufjs";

const { root } = protobuf.parse('syntax = "proto3"; message Order { string id = 1; repeated int32 n = 2; map<string, double> prices = 3; }');

export default () => { const Order = root.lookupType("Order"); const bytes = Order.encode(Order.create({ id: "a", n: [1, 300], prices: { x: 1.5 } })).finish(); return [[...bytes], Order.toObject(Order.decode(bytes)), Order.verify({ id: 5 })]; };
