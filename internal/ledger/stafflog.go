package ledger

import (
	"fmt"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// The actions of the staff log that concern products and orders. Who reads it may search for these words, so they stay
// as they are.
const (
	actProductAdd     = "product.add"
	actProductChange  = "product.change"
	actProductSplit   = "product.split"
	actProductRestock = "product.restock"
	actRedrive        = "dlq.redrive"
	actArchive        = "orders.archive"
)

func aboutProduct(id order.ProductID) string { return fmt.Sprintf("product %d", id) }

// changedSettings are the settings in which two rows of a product differ, as they were and as they are.
func changedSettings(was, is productRow) (before, after mysql.Values) {
	return mysql.Changed(was.settings(), is.settings())
}

func (r productRow) settings() mysql.Values {
	return mysql.Values{
		"name": r.Name, "description": r.Description, "price": r.Price, "state": r.State,
		"starts_at": mysql.TimeOrNil(r.StartsAt), "ends_at": mysql.TimeOrNil(r.EndsAt),
		"limit_per_user": r.LimitPerUser, "payment": r.Payment, "pay_within_s": r.PayWithin,
		"points_price": r.PointsPrice,
	}
}
