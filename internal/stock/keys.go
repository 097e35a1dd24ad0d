package stock

import (
	"stampede/internal/order"
)

// Every key of stock and orders in Redis is built here. The braces are a Redis Cluster hash tag: all
// keys of a product share a slot, so that one script call can change them together.

// productsKey is the set of the products that are loaded.
const productsKey = "products"

// stockPrefix is before the hash tag in the key of a product's stock.
const stockPrefix = "stock:"

// The fields of the hash sale:{p} that this package reads or writes itself. The scripts have the same names of them in
// lua/prelude.lua, except for the last, which they do not use.
const (
	fieldCurrency    = "currency"
	fieldVersion     = "version"  // of the product's row in MySQL, when it was loaded or corrected
	fieldRevision    = "revision" // of the settings
	fieldSeen        = "seen"     // the newest version that Redis has heard of
	fieldLostCommits = "lost_commits"
	fieldEpoch       = "epoch"   // a random word, for as long as Redis keeps the product
	fieldChanges     = "changes" // how often what is held of the product has changed
	fieldCounted     = "counted" // the number of changes at which what buyers have was compared with MySQL
	fieldComparedBy  = "compared_by"
)

// Arguments of scripts.
const (
	argSpare = "spare" // of settle: orders in the outbox are passed over
	argWhole = "whole" // of transfer: all units or none
)

// productKeys are the keys of one product that the scripts work on.
type productKeys struct {
	stock    string // string: units available
	reserved string // hash: order id → units
	bought   string // hash: user id → units reserved or bought
	sale     string // hash: settings and their revision, versions loaded and seen
	outbox   string // hash: order id → order that the queue has not acknowledged
	lent     string // hash: transfer → units that are on their way to another bucket
	settled  string // set: orders settled by another than their decider, and restocks
	idem     string // prefix of idempotency records, completed by user and key
}

func keysOf(stockID order.StockID) productKeys {
	tag := "{" + stockID.String() + "}"
	return productKeys{
		stock:    stockPrefix + tag,
		reserved: "reserved:" + tag,
		bought:   "bought:" + tag,
		sale:     "sale:" + tag,
		outbox:   "outbox:" + tag,
		lent:     "lent:" + tag,
		settled:  "settled:" + tag,
		idem:     "idem:" + tag + ":",
	}
}

func (k productKeys) idemKey(userID order.UserID, key string) string {
	return k.idem + userID.String() + ":" + key
}

// orderKey is the key of an order's status. It has no hash tag, since who asks knows the order's id only.
func orderKey(id order.OrderID) string { return orderPrefix + id.String() }

const orderPrefix = "order:"

// restockMark is before the id of a restock in the set of what was settled; restock.lua writes it.
const restockMark = "restock:"
