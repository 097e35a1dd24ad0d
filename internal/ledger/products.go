package ledger

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
)

const (
	// MaxStock is the most units that a product may have unsold at any time. It keeps sums of units exact in the
	// floating-point numbers of Lua with room to spare.
	MaxStock = 1_000_000_000
	// MaxLimitPerUser is the highest purchase limit; a higher one would allow no more than it does.
	MaxLimitPerUser = MaxStock
	// MaxNameChars and MaxDescriptionChars bound the texts of a product, in characters.
	MaxNameChars        = 200
	MaxDescriptionChars = 10_000
)

// productRow is a row of the table products.
type productRow struct {
	ID           order.StockID `db:"id"`
	Name         string        `db:"name"`
	Description  string        `db:"description"`
	Price        int64         `db:"price"`
	Currency     string        `db:"currency"`
	Stock        int64         `db:"stock"`
	StartsAt     sql.NullTime  `db:"starts_at"`
	EndsAt       sql.NullTime  `db:"ends_at"`
	LimitPerUser int64         `db:"limit_per_user"`
	Version      int64         `db:"version"`
	CreatedAt    time.Time     `db:"created_at"`

	State    order.SaleState `db:"state"`
	Revision int64           `db:"revision"`
	// LimitCeiling is the highest limit that was ever in force, 0 if there was a time without.
	LimitCeiling int64 `db:"limit_ceiling"`
	// Buckets is what it is in order.Product.
	Buckets int64 `db:"buckets"`
	// Counted is the version up to which the table bought has the product's orders.
	Counted int64 `db:"counted"`

	Payment   order.PaymentRule `db:"payment"`
	PayWithin int64             `db:"pay_within"` // in seconds
	// PointsPrice is what it is in order.Product.
	PointsPrice int64 `db:"points_price"`
}

const productColumns = `id, name, description, price, currency, stock, starts_at, ends_at, limit_per_user, version,
	created_at, state, revision, limit_ceiling, buckets, counted, payment, pay_within, points_price`

func (r productRow) product() order.Product {
	return order.Product{
		ID: r.ID, Name: r.Name, Description: r.Description, Price: r.Price, Currency: r.Currency, Stock: r.Stock,
		Version: r.Version, StartsAt: r.StartsAt.Time, EndsAt: r.EndsAt.Time, LimitPerUser: r.LimitPerUser,
		CreatedAt: r.CreatedAt, State: r.State, Revision: r.Revision, Buckets: r.Buckets,
		Payment: r.Payment, PayWithin: time.Duration(r.PayWithin) * time.Second, PointsPrice: r.PointsPrice,
	}
}

// AddProduct puts a product into the catalogue with its first stock, and returns it as stored: with its id, version and
// revision 1, and the time. An id of 0 lets the database choose one; a taken one is ErrExists, so that repeating a call
// with an id is safe. With a number of buckets it is split, as Split does it. Without a state it is on sale. Bounds of
// the sale are kept to the millisecond. A product that is not valid is an InvalidError.
func (l *Ledger) AddProduct(ctx context.Context, p order.Product) (order.Product, error) {
	return l.addProduct(ctx, p, nil)
}

// addProduct is AddProduct or, with a key, AddProductOnce.
func (l *Ledger) addProduct(ctx context.Context, p order.Product, key *ProductKey) (order.Product, error) {
	p = withDefaults(p)
	row := productRow{
		ID: p.ID, Name: p.Name, Description: p.Description, Price: p.Price, Currency: p.Currency, Stock: p.Stock,
		StartsAt: mysql.NullMillis(p.StartsAt), EndsAt: mysql.NullMillis(p.EndsAt), LimitPerUser: p.LimitPerUser,
		LimitCeiling: p.LimitPerUser, Version: 1, Counted: 1, CreatedAt: mysql.Now(), State: p.State, Revision: 1,
		Payment: p.Payment, PayWithin: seconds(p.PayWithin), PointsPrice: p.PointsPrice,
	}

	if err := validateProduct(row.product()); err != nil {
		return order.Product{}, fmt.Errorf("add product: %w", err)
	}
	// Only here: a currency may be withdrawn, and the settings of what is sold in it must still be changeable.
	if !order.IsCurrency(p.Currency) {
		return order.Product{}, fmt.Errorf("add product: %w",
			mysql.Invalidf("currency must be a code of ISO 4217, such as EUR"))
	}
	if err := validateBuckets(p.Buckets); err != nil {
		return order.Product{}, fmt.Errorf("add product: %w", err)
	}

	var added order.Product
	err := l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		first := row
		if key != nil {
			known, err := productOfKey(ctx, tx, key)
			if err != nil {
				return err
			}
			if known > 0 { // what was asked is the same, and so is the answer but for the time
				first.ID = known.Stock()
				added = first.product()
				return nil
			}
		}

		if err := insertProduct(ctx, tx, &first); err != nil {
			return err
		}
		if key != nil {
			if err := insertProductKey(ctx, tx, key, first); err != nil {
				return err
			}
		}

		added = first.product()
		about := first.settings()
		about["currency"], about["stock"] = first.Currency, first.Stock
		if err := mysql.LogChange(ctx, tx, actProductAdd, aboutProduct(first.ID.Product()), nil, about); err != nil {
			return err
		}

		if p.Buckets == 0 {
			return nil
		}
		after, err := split(ctx, tx, []productRow{first}, p.Buckets)
		added = after.product()
		return err
	})
	if err != nil {
		return order.Product{}, fmt.Errorf("add product: %w", err)
	}
	return added, nil
}

// withDefaults is a product that is new, with what nothing was said of.
func withDefaults(p order.Product) order.Product {
	p.State = cmp.Or(p.State, order.OnSale)
	p.Payment = cmp.Or(p.Payment, order.PaymentNone)
	p.PayWithin = cmp.Or(p.PayWithin, order.DefaultPayWithin)
	return p
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }

// validateProduct says what is wrong with a product, its settings included, as an InvalidError.
func validateProduct(p order.Product) error {
	switch {
	case p.ID < 0 || p.ID > order.MaxProductID:
		return mysql.Invalidf("product_id must be 1 to %d", int64(order.MaxProductID))
	case strings.TrimSpace(p.Name) == "" || !utf8.ValidString(p.Name) || utf8.RuneCountInString(p.Name) > MaxNameChars:
		return mysql.Invalidf("name must have 1 to %d characters, and not only blanks", MaxNameChars)
	case !utf8.ValidString(p.Description) || utf8.RuneCountInString(p.Description) > MaxDescriptionChars:
		return mysql.Invalidf("description must be text of at most %d characters", MaxDescriptionChars)
	case plaintext.Fault(p.Name) != "":
		return mysql.Invalidf("name: %s", plaintext.Fault(p.Name))
	case plaintext.LinesFault(p.Description) != "":
		return mysql.Invalidf("description: %s", plaintext.LinesFault(p.Description))
	case p.Price < 0 || p.Price > order.MaxUnitPrice:
		return mysql.Invalidf("price must be 0 to %d minor units", int64(order.MaxUnitPrice))
	case p.PointsPrice < 0 || p.PointsPrice > order.MaxUnitPrice:
		return mysql.Invalidf("points_price must be 1 to %d points, or absent", int64(order.MaxUnitPrice))
	case p.Stock < 0 || p.Stock > MaxStock:
		return mysql.Invalidf("stock must be 0 to %d units", MaxStock)
	case p.LimitPerUser < 0 || p.LimitPerUser > MaxLimitPerUser:
		return mysql.Invalidf("limit_per_user must be 1 to %d units, or absent", MaxLimitPerUser)
	case !isBound(p.StartsAt):
		return mysql.Invalidf("starts_at must be in the years 1970 to 9999")
	case !isBound(p.EndsAt):
		return mysql.Invalidf("ends_at must be in the years 1970 to 9999")
	case !p.StartsAt.IsZero() && !p.EndsAt.IsZero() && !p.EndsAt.After(p.StartsAt):
		return mysql.Invalidf("ends_at must be after starts_at")
	case p.State != order.OnSale && p.State != order.OffSale:
		return mysql.Invalidf("state must be %s or %s", order.OnSale, order.OffSale)
	case p.Payment != order.PaymentNone && p.Payment != order.PaymentRequired:
		return mysql.Invalidf("payment must be %s or %s", order.PaymentNone, order.PaymentRequired)
	case p.PayWithin < order.MinPayWithin || p.PayWithin > order.MaxPayWithin:
		return mysql.Invalidf("pay_within_s must be %d to %d seconds", seconds(order.MinPayWithin),
			seconds(order.MaxPayWithin))
	}
	return nil
}

// isBound reports whether a time can bound a sale, or is zero. Redis counts milliseconds from the epoch, and takes none
// of them for no bound.
func isBound(t time.Time) bool { return t.IsZero() || mysql.IsStorable(t) && t.UnixMilli() > 0 }

// insertProduct inserts a row of version 1 with its first stock in the ledger. Where it has no id, it sets the one that
// the database chose.
func insertProduct(ctx context.Context, tx *sqlx.Tx, row *productRow) error {
	choose := row.ID == 0
	for {
		if err := takeID(ctx, tx, row); err != nil {
			return fmt.Errorf("take an id: %w", err)
		}

		_, err := tx.NamedExecContext(ctx, `INSERT INTO products (`+productColumns+`)
			VALUES (:id, :name, :description, :price, :currency, :stock, :starts_at, :ends_at, :limit_per_user,
				:version, :created_at, :state, :revision, :limit_ceiling, :buckets, :counted, :payment, :pay_within,
				:points_price)`, row)
		switch {
		case mysql.ErrorNumber(err) == mysql.DuplicateEntry && choose:
			row.ID = 0 // somebody has put a product there by hand; the next id is behind all of them
			if err := skipIDs(ctx, tx); err != nil {
				return fmt.Errorf("take an id: %w", err)
			}
			choose = false
			continue
		case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
			return fmt.Errorf("product %d %w", row.ID, mysql.ErrExists)
		case err != nil:
			return fmt.Errorf("insert product: %w", err)
		}

		return insertLedger(ctx, tx, []ledgerRow{{
			StockID: row.ID, Version: 1, Delta: row.Stock, Balance: row.Stock,
			Reason: ledgerInitial, Ref: []byte(ledgerInitial), CreatedAt: row.CreatedAt,
		}})
	}
}

// takeID takes the id of a row, or the next free one where it has none, from the table that counts them. That of the
// products cannot count, since the ids of buckets are above those of all products.
func takeID(ctx context.Context, tx *sqlx.Tx, row *productRow) (err error) {
	switch {
	case row.ID.Bucket() > 0, row.ID < 0: // one of a rehearsal is below all others
	case row.ID > 0:
		_, err = tx.ExecContext(ctx, `INSERT IGNORE INTO product_ids (id) VALUES (?)`, row.ID)
	default:
		result, err := tx.ExecContext(ctx, `INSERT INTO product_ids () VALUES ()`)
		if err != nil {
			return err
		}
		id, err := result.LastInsertId()
		row.ID = order.StockID(id)
		return err
	}
	return err
}

// skipIDs makes the next id one behind all products, also those that were inserted without this package.
func skipIDs(ctx context.Context, tx *sqlx.Tx) error {
	_, err := tx.ExecContext(ctx, `INSERT IGNORE INTO product_ids (id) SELECT MAX(id) FROM products WHERE id <= ?`,
		int64(order.MaxProductID))
	return err
}

// Product reads one product or bucket, or returns ErrNotFound. The units of a split product are in its buckets; see
// Stocks.
func (l *Ledger) Product(ctx context.Context, id order.StockID) (order.Product, error) {
	var row productRow
	err := l.db.GetContext(ctx, &row, `SELECT `+productColumns+` FROM products WHERE id = ?`, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return order.Product{}, fmt.Errorf("product %d %w", id, mysql.ErrNotFound)
	case err != nil:
		return order.Product{}, fmt.Errorf("read product %d: %w", id, err)
	}
	return row.product(), nil
}

// Stocks reads the units of products and buckets by id. Those that do not exist are left out.
func (l *Ledger) Stocks(ctx context.Context, ids []order.StockID) (map[order.StockID]int64, error) {
	stocks := make(map[order.StockID]int64, len(ids))
	for chunk := range slices.Chunk(ids, mysql.MaxInList) {
		query, args, err := sqlx.In(`SELECT id, stock FROM products WHERE id IN (?)`, chunk)
		if err != nil {
			return nil, fmt.Errorf("read stocks: %w", err)
		}
		var rows []productRow
		if err := l.db.SelectContext(ctx, &rows, query, args...); err != nil {
			return nil, fmt.Errorf("read stocks: %w", err)
		}
		for _, row := range rows {
			stocks[row.ID] = row.Stock
		}
	}
	return stocks, nil
}

// Products reads up to limit products, at most MaxPage, with ids greater than afterID, by id. Buckets are not among
// them.
func (l *Ledger) Products(ctx context.Context, afterID order.ProductID, limit int) ([]order.Product, error) {
	const query = `SELECT ` + productColumns + ` FROM products WHERE id > ? AND id <= ? ORDER BY id LIMIT ?`
	return l.selectProducts(ctx, query, afterID, int64(order.MaxProductID), mysql.PageSize(limit))
}

// ProductsOnSale is Products without those that are off sale.
func (l *Ledger) ProductsOnSale(ctx context.Context, afterID order.ProductID, limit int) ([]order.Product, error) {
	const query = `SELECT ` + productColumns +
		` FROM products WHERE id > ? AND id <= ? AND state = ? ORDER BY id LIMIT ?`
	return l.selectProducts(ctx, query, afterID, int64(order.MaxProductID), order.OnSale, mysql.PageSize(limit))
}

func (l *Ledger) selectProducts(ctx context.Context, query string, args ...any) ([]order.Product, error) {
	var rows []productRow
	if err := l.db.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("read products: %w", err)
	}
	products := make([]order.Product, len(rows))
	for i, row := range rows {
		products[i] = row.product()
	}
	return products, nil
}

// lockProduct locks a product's row until the transaction ends and reads it, or returns nil if there is none. It must
// be the first statement of its transaction: under REPEATABLE READ the first plain read takes the snapshot that all
// later ones see, so every plain read that follows sees all that was committed under this lock before.
func lockProduct(ctx context.Context, tx *sqlx.Tx, id order.StockID) (*productRow, error) {
	var row productRow
	err := tx.GetContext(ctx, &row, `SELECT `+productColumns+` FROM products WHERE id = ? FOR UPDATE`, id)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("lock product %d: %w", id, err)
	}
	return &row, nil
}

// lockWhole locks a product's row and those of its buckets, in the order of their ids, and returns them in that order:
// the product comes first. ErrNotFound: no such product; a bucket is none. Like lockProduct it comes before all plain
// reads.
func lockWhole(ctx context.Context, tx *sqlx.Tx, id order.ProductID) ([]productRow, error) {
	if id > order.MaxProductID {
		return nil, mysql.ErrNotFound
	}
	product, err := lockProduct(ctx, tx, id.Stock())
	switch {
	case err != nil:
		return nil, err
	case product == nil:
		return nil, mysql.ErrNotFound
	case product.Buckets == 0:
		return []productRow{*product}, nil
	}

	buckets, err := lockRows(ctx, tx, id.Buckets(product.Buckets))
	if err == nil && len(buckets) != int(product.Buckets) {
		err = fmt.Errorf("product %d has %d buckets, and rows of %d", id, product.Buckets, len(buckets))
	}
	return append([]productRow{*product}, buckets...), err
}

// lockRows locks those of the rows that exist, in ascending order of their ids.
func lockRows(ctx context.Context, tx *sqlx.Tx, ids []order.StockID) ([]productRow, error) {
	query, args, err := sqlx.In(`SELECT `+productColumns+` FROM products WHERE id IN (?) ORDER BY id FOR UPDATE`, ids)
	if err != nil {
		return nil, fmt.Errorf("lock products: %w", err)
	}
	var rows []productRow
	if err := tx.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("lock products: %w", err)
	}
	return rows, nil
}
