package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"stampede/internal/account"
	"stampede/internal/buckets"
	"stampede/internal/config"
	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/internal/telemetry"
	"stampede/internal/token"
)

// tokenCmd makes access tokens without the edge, for tests and loads.
type tokenCmd struct {
	User  int64         `placeholder:"N" required:"" xor:"users" help:"User id, a positive number."`
	Users userRange     `placeholder:"N-M" required:"" xor:"users" help:"Range of user ids, such as 1-5000; prints one token per line."`
	Role  account.Role  `enum:"buyer,merchant,admin" default:"buyer" help:"What the users may do: buyer, merchant or admin."`
	TTL   time.Duration `default:"1h" help:"How long the token is valid."`

	secret *string
}

func (c *tokenCmd) declare(vars *config.Set) {
	c.secret = vars.Secret("JWT_SECRET", "key of the access tokens, at least 32 bytes", token.CheckSecret)
}

func (c *tokenCmd) Validate() error {
	if c.User < 0 || c.TTL <= 0 {
		return errors.New("--user and --ttl must be positive")
	}
	return nil
}

func (c *tokenCmd) Run() error {
	users := c.Users
	if users == (userRange{}) {
		users = userRange{c.User, c.User}
	}
	return token.NewKeeper(*c.secret).WriteTokens(os.Stdout, users.first, users.last, string(c.Role), c.TTL)
}

// maxTokens bounds the tokens that are made at a time, of some 200 bytes each.
const maxTokens = 1_000_000

// userRange is the user ids from first to last, written as 1-5000.
type userRange struct{ first, last int64 }

func (r *userRange) UnmarshalText(text []byte) error {
	first, last, _ := strings.Cut(string(text), "-")
	var err, err2 error
	r.first, err = strconv.ParseInt(first, 10, 64)
	r.last, err2 = strconv.ParseInt(last, 10, 64)
	if errors.Join(err, err2) != nil || r.first <= 0 || r.last < r.first || r.last-r.first >= maxTokens {
		return fmt.Errorf("it must be two positive numbers, such as 1-5000, with at most %d ids", maxTokens)
	}
	return nil
}

type migrateCmd struct {
	AppUser string `placeholder:"USER" help:"Also create this database user, or set its password again: it may read and write, but not change the schema."`

	needsMySQL
	password           *string
	local, allowGalera *bool
}

func (c *migrateCmd) declare(vars *config.Set) {
	c.password = vars.Optional("MYSQL_APP_PASSWORD", "the password of the user that --app-user names")
	c.local, c.allowGalera = vars.MySQLSettings()
	c.needsMySQL.declare(vars)
}

func (c *migrateCmd) Run(ctx context.Context) error {
	if (c.AppUser == "") != (*c.password == "") {
		return usagef("migrate: --app-user and MYSQL_APP_PASSWORD belong together")
	}
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	durability := telemetry.Durability{DB: db, Local: *c.local, AllowGalera: *c.allowGalera}
	if err := durability.Check(ctx); err != nil {
		return err
	}
	version, err := db.Migrate(ctx)
	if err != nil {
		return err
	}
	fmt.Println("schema version", version)
	if c.AppUser == "" {
		return nil
	}
	if err := db.EnsureUser(ctx, c.AppUser, *c.password); err != nil {
		return err
	}
	fmt.Printf("database user %s may read and write\n", c.AppUser)
	return nil
}

type queuesCmd struct{ queue, dlq *string }

func (c *queuesCmd) declare(vars *config.Set) { c.queue, c.dlq = vars.Queues() }

func (c *queuesCmd) Run(ctx context.Context) error {
	cfg, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("AWS_…: %w", err)
	}
	if err := queue.Create(ctx, sqs.NewFromConfig(cfg), *c.queue, *c.dlq); err != nil {
		return err
	}
	fmt.Printf("queues %s and %s are there\n", *c.queue, *c.dlq)
	return nil
}

type productAddCmd struct {
	ID          int64           `placeholder:"N" help:"Id of the product; 0 takes the next free one."`
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

	needsMySQL
}

func (c *productAddCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	added, err := ledger.New(db).AddProduct(ctx, order.Product{
		ID: c.ID, Name: c.Name, Description: c.Description, Price: c.Price, Currency: c.Currency, Stock: c.Stock,
		LimitPerUser: c.Limit, StartsAt: c.Starts.Time, EndsAt: c.Ends.Time, State: c.State, Buckets: c.Buckets,
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

// productSetCmd changes what is given of a product.
type productSetCmd struct {
	ID          int64            `required:"" placeholder:"N" help:"Id of the product."`
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
	books, st := data.ledger, data.stock
	// The buckets change while the product is off sale: before it is put on sale, or after it is taken off.
	changes := []func(*order.Product){c.change}
	if c.Buckets != nil {
		changes = []func(*order.Product){func(*order.Product) {}, c.change}
	}
	var p order.Product
	isSplit := c.Buckets == nil
	for i, change := range changes {
		if p, err = books.UpdateProduct(ctx, c.ID, change); errors.Is(err, mysql.ErrNotFound) {
			return fmt.Errorf("there is no product %d", c.ID)
		}
		if err != nil {
			return err
		}
		if _, err := st.Configure(ctx, p); err != nil {
			return fmt.Errorf("MySQL has the change; repeat the command for Redis to have it too: %w", err)
		}
		if isSplit {
			continue
		}
		after, err := split(ctx, books, st, p, *c.Buckets)
		switch {
		case err == nil:
			p, isSplit = after, true
		case i == len(changes)-1:
			return err
		}
	}
	fmt.Printf("product %d: %s, %s at %s%s\n", p.ID, plaintext.Escape(p.Name), p.State,
		order.Money(p.Price, p.Currency), inBuckets(p))
	return nil
}

// split spreads the units of a product over buckets, in MySQL first. Redis has its settings, so that it sells nothing
// if MySQL says so. Should this die before Redis knows of the buckets, the same command again does the rest, or
// reconcile.
func split(ctx context.Context, books *ledger.Ledger, st *stock.Stock, p order.Product,
	buckets int64) (order.Product, error) {
	loaded, err := st.Products(ctx)
	if err != nil {
		return p, err
	}
	loaded = slices.DeleteFunc(loaded, func(id int64) bool { return order.ProductOf(id) != p.ID })
	if p.Buckets != buckets {
		for _, id := range loaded {
			level, err := st.Level(ctx, id)
			if err != nil {
				return p, err
			}
			if level.Reservations+level.Outbox+level.Lent > 0 {
				return p, fmt.Errorf("product %d cannot be split now: %d orders of it are on their way", p.ID,
					level.Reservations)
			}
		}
	}
	if p, err = books.Split(ctx, p.ID, buckets); err != nil {
		return p, err
	}
	r := reconcile.Reconciler{Redis: st, MySQL: books, Apply: true}
	for _, id := range loaded {
		if _, err := r.Product(ctx, id); err != nil {
			return p, fmt.Errorf("MySQL has the buckets; repeat the command for Redis to have them too: %w", err)
		}
	}
	return p, nil
}

// listedProduct is a product as JSON. Its names are those of the edge's API.
type listedProduct struct {
	ID           int64           `json:"product_id"`
	Name         string          `json:"name"`
	Description  string          `json:"description,omitempty"`
	State        order.SaleState `json:"state"`
	Stock        int64           `json:"stock"` // units that MySQL has not sold
	Buckets      int64           `json:"buckets,omitempty"`
	Price        int64           `json:"price"` // of one unit, in minor units
	Currency     string          `json:"currency"`
	LimitPerUser int64           `json:"limit_per_user,omitempty"`
	StartsAt     time.Time       `json:"starts_at,omitzero"`
	EndsAt       time.Time       `json:"ends_at,omitzero"`
	CreatedAt    time.Time       `json:"created_at"`
}

type productListCmd struct {
	jsonFlag
	needsMySQL
}

func (c *productListCmd) Run(ctx context.Context) error {
	db, err := c.open()
	if err != nil {
		return err
	}
	defer db.Close()
	books := ledger.New(db)
	products := []order.Product{}
	for after := int64(0); ; {
		page, err := books.Products(ctx, after, mysql.MaxPage)
		if err != nil {
			return err
		}
		products = append(products, page...)
		if len(page) < mysql.MaxPage {
			break
		}
		after = page[len(page)-1].ID
	}
	for i := range products {
		if p := &products[i]; p.Buckets > 0 {
			units, err := books.Stocks(ctx, p.StockIDs())
			if err != nil {
				return err
			}
			for _, n := range units {
				p.Stock += n
			}
		}
	}
	if c.JSON {
		listed := make([]listedProduct, len(products))
		for i, p := range products {
			listed[i] = listedProduct{
				p.ID, p.Name, p.Description, p.State, p.Stock, p.Buckets, p.Price, p.Currency, p.LimitPerUser,
				p.StartsAt,
				p.EndsAt, p.CreatedAt,
			}
		}
		return printJSON(listed)
	}
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "id\tstate\tstock\tbuckets\tprice\tlimit\tstarts\tends\tname\t")
	for _, p := range products {
		fmt.Fprintf(tab, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t\n", p.ID, p.State, p.Stock,
			orDash(p.Buckets > 0, p.Buckets), order.Money(p.Price, p.Currency),
			orDash(p.LimitPerUser != 0, p.LimitPerUser), orDash(!p.StartsAt.IsZero(), p.StartsAt.Format(time.RFC3339)),
			orDash(!p.EndsAt.IsZero(), p.EndsAt.Format(time.RFC3339)), plaintext.Escape(p.Name))
	}
	return tab.Flush()
}

func orDash(known bool, value any) string {
	if !known {
		return "-"
	}
	return fmt.Sprint(value)
}

// restockCmd adds units to a product, or takes some out.
type restockCmd struct {
	Product int64  `required:"" placeholder:"N" help:"Id of the product."`
	Units   int64  `required:"" placeholder:"N" help:"Units to add; negative to take out units that are for sale."`
	ID      string `required:"" placeholder:"TEXT" help:"Id of the restock, such as the number of the delivery: the same id is applied once."`

	needsStores
}

// Run changes MySQL first. If it dies before Redis knows, the same command again does the rest.
func (c *restockCmd) Run(ctx context.Context) error {
	data, err := c.open()
	if err != nil {
		return err
	}
	defer data.close()
	if c.Units < 0 {
		return c.correct(ctx, data)
	}
	done, err := data.ledger.Restock(ctx, c.Product, c.Units, c.ID)
	if errors.Is(err, mysql.ErrNotFound) {
		return fmt.Errorf("there is no product %d", c.Product)
	}
	if err != nil {
		return err
	}
	added, err := buckets.Restock(ctx, data.stock, done)
	if err != nil {
		return fmt.Errorf("MySQL has the units; repeat the command for Redis to have them too: %w", err)
	}
	switch {
	case done.Applied:
		fmt.Printf("product %d: %d units added, %d in stock\n", c.Product, c.Units, done.Balance)
	case added:
		fmt.Printf("product %d: restock %s was in MySQL already and is in Redis now\n", c.Product, c.ID)
	default:
		fmt.Printf("product %d: restock %s was applied before; nothing changed\n", c.Product, c.ID)
	}
	return nil
}

// correct takes units out of a product, of those for sale.
func (c *restockCmd) correct(ctx context.Context, data parts) error {
	done, err := buckets.Mover{Redis: data.stock, MySQL: data.ledger}.Correct(ctx, c.Product, -c.Units, c.ID)
	switch {
	case errors.Is(err, mysql.ErrNotFound):
		return fmt.Errorf("there is no product %d", c.Product)
	case errors.Is(err, ledger.ErrTooFew):
		return fmt.Errorf("product %d: fewer than %d units are for sale; nothing changed", c.Product, -c.Units)
	case err != nil:
		return err
	case done.Applied:
		fmt.Printf("product %d: %d units taken out, %d in stock\n", c.Product, -c.Units, done.Balance)
	default:
		fmt.Printf("product %d: restock %s was applied before; nothing changed\n", c.Product, c.ID)
	}
	return nil
}

func printJSON(value any) error { return writeJSON(os.Stdout, value) }

func writeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}
