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
	fieldBuckets     = "buckets"
	fieldVersion     = "version"  // of the product's row in MySQL, when it was loaded or corrected
	fieldBorn        = "born"     // the same when it was loaded
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
	stock     string    // string: units available
	reserved  string    // hash: order id → all that is known of an order that is reserved
	bought    string    // hash: user id → units reserved or bought
	sale      string    // hash: settings and their revision, versions loaded and seen
	outbox    string    // hash: name of a batch → its orders, until the queue has acknowledged them
	lent      string    // hash: transfer → units that are on their way to another bucket
	settled   string    // set: orders settled by another than their decider, and restocks
	completed [2]string // lists: orders that were completed lately; settle.lua says which has what
	idem      [2]string // hashes: user and key → order; reserve.lua says which has what
	kept      [2]string // lists: those of completed, as they were when MySQL was found to have lost commits
	oldIdem   string    // prefix of idempotency records of programs before message version 2
}

func keysOf(stockID order.StockID) productKeys {
	tag := "{" + stockID.String() + "}"
	return productKeys{
		stock:     stockPrefix + tag,
		reserved:  "reserved:" + tag,
		bought:    "bought:" + tag,
		sale:      "sale:" + tag,
		outbox:    "outbox:" + tag,
		lent:      "lent:" + tag,
		settled:   "settled:" + tag,
		completed: [2]string{"completed:" + tag + ":0", "completed:" + tag + ":1"},
		idem:      [2]string{"idem:" + tag + ":0", "idem:" + tag + ":1"},
		kept:      [2]string{"kept:" + tag + ":0", "kept:" + tag + ":1"},
		oldIdem:   "idem:" + tag + ":",
	}
}

// SaleKey is the key of a hash with the settings of a sale, for scripts of others that look at them.
func SaleKey(stockID order.StockID) string { return keysOf(stockID).sale }

// oldKeys are the keys of the idempotency records that programs before message version 2 write and read, as long as
// they are to be thought of.
func (s *Stock) oldKeys(k productKeys, userID order.UserID, key string) []string {
	if key == "" || !s.KeepOldKeys.Load() {
		return nil
	}
	return []string{k.oldIdem + userID.String() + ":" + key}
}

// restockMark is before the id of a restock in the set of what was settled; restock.lua writes it.
const restockMark = "restock:"

// returnMark is before the id of an order in the same set whose units were returned; return.lua writes it.
const returnMark = "return:"
