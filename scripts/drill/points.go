package main

// pointsChanges break the rules of orders that are paid with points.
var pointsChanges = []change{
	{
		promise: "P12", what: "the points of an order are not taken",
		file: "internal/ledger/decide.go",
		old:  "\t\tif err := d.wallets.Write(ctx, tx); err != nil {\n\t\t\treturn err\n\t\t}\n", new: "",
		pkg: "internal/ledger", test: "TestPaidWithPoints", says: "user 1 has 500 points and spent 0",
	}, {
		promise: "P12", what: "an order is completed though its points could not be taken",
		file: "internal/ledger/decide.go",
		old:  "d.wallets.Write(ctx, tx); err != nil {", new: "d.wallets.Write(ctx, tx); err != nil && false {",
		pkg: "internal/ledger", test: "TestNoDecisionWithoutItsPoints", says: "it was decided though",
	}, {
		promise: "P12", what: "an order is judged without the balance",
		file: "internal/ledger/decide.go",
		old:  "!d.wallets.Spend(o.UserID, o.TotalPrice(), o.ID):",
		new:  "!d.wallets.Spend(o.UserID, o.TotalPrice(), o.ID) && false:",
		pkg:  "internal/ledger", test: "TestPaidWithPoints", says: `"completed" "insufficient_points" "held"`,
	}, {
		promise: "P12", what: "wallets are read without a lock",
		file: "internal/wallet/wallet.go",
		old:  "ORDER BY user_id FOR UPDATE`, chunk)", new: "ORDER BY user_id`, chunk)",
		pkg: "internal/till", test: "TestAThousandOrdersByPoints", says: "write the ledger of wallets",
	}, {
		promise: "P12", what: "a message does not say that its orders are paid with points",
		file: "internal/order/json.go", old: "if o.Points {", new: "if false {",
		pkg: "internal/order", test: "TestMessageOfPoints", says: "Pack = ",
	}, {
		promise: "P12", what: "a message of points is of the version before",
		file: "internal/order/message.go", old: "body[version] = '3'", new: "body[version] = '2'",
		pkg: "internal/order", test: "TestMessageOfPoints", says: "Pack = ",
	}, {
		promise: "P12", what: "a message of the version before may have points",
		file: "internal/order/message.go", old: "if e.V < MessageVersion && slices", new: "if false && slices",
		pkg: "internal/order", test: "TestUndecodable", says: "points, too early",
	}, {
		promise: "P12", what: "the relay takes points for money",
		file: "internal/stock/reservation.go",
		old:  "r.order.UnitPrice, r.order.Points = d.price(f[2])", new: "r.order.UnitPrice, _ = d.price(f[2])",
		pkg: "worker", test: "TestTheRelaySendsPoints", says: "want failed insufficient_points",
	}, {
		promise: "P12", what: "a redriven order is paid with money",
		file: "internal/stock/readmit.go", old: "keptPrice(o)", new: "o.UnitPrice",
		pkg: "internal/stock", test: "TestScripts/points", says: "readmitted is",
	}, {
		promise: "P12", what: "what has no price in points is given away for none",
		file: "lua/reserve.lua", old: "elseif by_points and price == '0' then", new: "elseif false then",
		pkg: "internal/stock", test: "TestScripts/no_price_in_points", says: "without a price: got",
	},
}
