package main

import (
	"context"
	"fmt"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/plaintext"
)

// productAddCmd puts a product on sale. Redis loads it when somebody orders it.
type productAddCmd struct {
	ID          order.ProductID `placeholder:"N" help:"Id of the product; 0 takes the next free one."`
	Name        string          `required:"" placeholder:"TEXT" help:"Name that buyers see."`
	Description string          `placeholder:"TEXT" help:"Description that buyers see."`
	Price       int64           `placeholder:"N" help:"Price of one unit in minor units, such as cents; 0 if not given."`
	Currency    string          `default:"EUR" help:"ISO 4217 code of the price."`
	Stock       int64           `placeholder:"N" help:"Units on sale; 0 if not given."`
	Limit       int64           `placeholder:"N" help:"Most units that one user may buy; 0 is no limit."`
	Starts      instant         `placeholder:"TIME" help:"Start of the sale in RFC 3339, such as 2026-11-27T08:00:00Z; none if not given."`
	Ends        instant         `placeholder:"TIME" help:"End of the sale, in the same form."`
	State       order.SaleState `enum:"on_sale,off_sale" default:"on_sale" help:"Whether it can be ordered: on_sale or off_sale."`
	Buckets     int64           `placeholder:"N" help:"Number of buckets, 2 to 64, to spread the units over, so that several Redis masters can sell them; 0 for none."`

	Payment   order.PaymentRule `enum:"none,required" default:"none" help:"Whether orders must be paid."`
	PayWithin time.Duration     `default:"15m" placeholder:"TIME" help:"How long an order waits for it, up to 168h."`

	PointsPrice int64 `placeholder:"N" help:"Points that a unit costs who pays with points; 0 if nobody can."`

	needsMySQL
}

func (c *productAddCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()

	added, err := ledger.New(db).AddProduct(ctx, order.Product{
		ID: c.ID.Stock(), Name: c.Name, Description: c.Description,
		Price: c.Price, Currency: c.Currency, Stock: c.Stock,
		LimitPerUser: c.Limit, StartsAt: c.Starts.Time, EndsAt: c.Ends.Time, State: c.State, Buckets: c.Buckets,
		Payment: c.Payment, PayWithin: c.PayWithin, PointsPrice: c.PointsPrice,
	})
	if err != nil {
		return err
	}

	fmt.Printf("product %d: %s, %d units at %s%s\n", added.ID, plaintext.Escape(added.Name), c.Stock,
		order.Money(added.Price, added.Currency), inBuckets(added))
	return nil
}

// instant is a time of RFC 3339 on the command line.
type instant struct{ time.Time }

func (i *instant) UnmarshalText(text []byte) (err error) {
	i.Time, err = order.ParseTime(string(text))
	return err
}

// inBuckets says into how many buckets a product is split, if it is.
func inBuckets(p order.Product) string {
	if p.Buckets == 0 {
		return ""
	}
	return fmt.Sprintf(", in %d buckets", p.Buckets)
}
