package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
	"stampede/internal/reconcile"
)

// productSetCmd changes what is given of a product.
type productSetCmd struct {
	ID          order.ProductID  `required:"" placeholder:"N" help:"Id of the product."`
	Name        *string          `placeholder:"TEXT" help:"Name that buyers see."`
	Description *string          `placeholder:"TEXT" help:"Description that buyers see."`
	Price       *int64           `placeholder:"N" help:"Price of one unit in minor units, such as cents."`
	Limit       *int64           `placeholder:"N" xor:"limit" help:"Most units that one user may buy; 0 is no limit."`
	NoLimit     bool             `xor:"limit" help:"Let users buy as many units as they like."`
	Starts      *instant         `placeholder:"TIME" xor:"starts" help:"Start of the sale in RFC 3339, such as 2026-11-27T08:00:00Z."`
	NoStarts    bool             `xor:"starts" help:"Let the sale have no start."`
	Ends        *instant         `placeholder:"TIME" xor:"ends" help:"End of the sale, in the same form."`
	NoEnds      bool             `xor:"ends" help:"Let the sale have no end."`
	State       *order.SaleState `enum:"on_sale,off_sale" placeholder:"STATE" help:"Whether it can be ordered: on_sale or off_sale."`
	Buckets     *int64           `placeholder:"N" help:"Number of buckets, 2 to 64, to spread the units over, so that several Redis masters can sell them; 0 for none. Only while nobody has bought or can buy the product."`

	Payment   *order.PaymentRule `enum:"none,required" placeholder:"RULE" help:"Whether orders must be paid."`
	PayWithin *time.Duration     `placeholder:"TIME" help:"How long an order waits for it, up to 168h."`

	PointsPrice *int64 `placeholder:"N" help:"Points that a unit costs who pays with points; 0 if nobody can."`

	needsStores
}

func (c *productSetCmd) Validate() error {
	if c.ID <= 0 || c.Buckets != nil && *c.Buckets < 0 {
		return errors.New("--id must be positive, and --buckets not negative")
	}
	return nil
}

// change makes the changes that are given.
func (c *productSetCmd) change(p *order.Product) {
	set(&p.Name, c.Name)
	set(&p.Description, c.Description)
	set(&p.Price, c.Price)
	set(&p.LimitPerUser, c.Limit)
	set(&p.State, c.State)
	set(&p.Payment, c.Payment)
	set(&p.PayWithin, c.PayWithin)
	set(&p.PointsPrice, c.PointsPrice)
	if c.NoLimit {
		p.LimitPerUser = 0
	}
	if c.Starts != nil {
		p.StartsAt = c.Starts.Time
	}
	if c.NoStarts {
		p.StartsAt = time.Time{}
	}
	if c.Ends != nil {
		p.EndsAt = c.Ends.Time
	}
	if c.NoEnds {
		p.EndsAt = time.Time{}
	}
}

// set gives a field the value of a flag, if there is one.
func set[T any](field, value *T) {
	if value != nil {
		*field = *value
	}
}

// Run changes MySQL first. If it dies before Redis knows, the same command again does the rest, and so does one without
// a change.
func (c *productSetCmd) Run(ctx context.Context) error {
	data, err := c.open()
	if err != nil {
		return err
	}
	defer data.close()

	var p order.Product
	if c.Buckets == nil {
		p, err = c.update(ctx, data, c.change)
	} else {
		p, err = c.updateAndSplit(ctx, data)
	}
	if err != nil {
		return err
	}
	fmt.Printf("product %d: %s, %s at %s%s\n", p.ID, plaintext.Escape(p.Name), p.State,
		order.Money(p.Price, p.Currency), inBuckets(p))
	return nil
}

// update makes a change in MySQL and then in Redis.
func (c *productSetCmd) update(ctx context.Context, data parts, change func(*order.Product)) (order.Product, error) {
	p, err := data.ledger.UpdateProduct(ctx, c.ID, change)
	if errors.Is(err, mysql.ErrNotFound) {
		return p, fmt.Errorf("there is no product %d", c.ID)
	}
	if err != nil {
		return p, err
	}
	if _, err := data.stock.Configure(ctx, p); err != nil {
		return p, fmt.Errorf("MySQL has the change; repeat the command for Redis to have it too: %w", err)
	}
	return p, nil
}

// updateAndSplit changes the number of buckets too, which is possible only while the product is off sale: before the
// change, if that puts it on sale, or after it, if that takes it off.
func (c *productSetCmd) updateAndSplit(ctx context.Context, data parts) (order.Product, error) {
	// Redis must have the product's settings before it is split.
	p, err := c.update(ctx, data, func(*order.Product) {})
	if err != nil {
		return p, err
	}
	_, splitErr := split(ctx, data, p, *c.Buckets)

	if p, err = c.update(ctx, data, c.change); err != nil || splitErr == nil {
		return p, err
	}
	return split(ctx, data, p, *c.Buckets)
}

// split spreads the units of a product over buckets, in MySQL first. Redis has its settings, so that it sells nothing
// if MySQL says so. Should this die before Redis knows of the buckets, the same command again does the rest, or
// reconcile.
func split(ctx context.Context, data parts, p order.Product, buckets int64) (order.Product, error) {
	// What Redis has loaded of the product: the product itself, or its buckets so far.
	loaded, err := data.stock.Products(ctx)
	if err != nil {
		return p, err
	}
	loaded = slices.DeleteFunc(loaded, func(id order.StockID) bool { return id.Product() != p.ID.Product() })

	if p.Buckets != buckets {
		for _, id := range loaded {
			level, err := data.stock.Level(ctx, id)
			if err != nil {
				return p, err
			}
			if level.Reservations+level.Outbox+level.InTransfer > 0 {
				return p, fmt.Errorf("product %d cannot be split now: %d orders of it are on their way", p.ID,
					level.Reservations)
			}
		}
	}
	if p, err = data.ledger.Split(ctx, p.ID.Product(), buckets); err != nil {
		return p, err
	}

	r := reconcile.Reconciler{Redis: data.stock, MySQL: data.ledger, Apply: true}
	for _, id := range loaded {
		if _, err := r.Product(ctx, id); err != nil {
			return p, fmt.Errorf("MySQL has the buckets; repeat the command for Redis to have them too: %w", err)
		}
	}
	return p, nil
}
