package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/uuid"

	"stampede/internal/buckets"
	"stampede/internal/order"
	"stampede/internal/plaintext"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/internal/store"
	"stampede/internal/telemetry"
	"stampede/internal/token"
	"stampede/localstack"
)

func runToken(_ context.Context, args []string) error {
	in := newInput("token")
	user := in.Int64("user", 0, "user id, a positive number")
	var users userRange
	in.TextVar(&users, "users", users, "several user ids, such as 1-5000; gives a token on each line")
	role := in.String("role", string(store.Buyer), "buyer, merchant or admin")
	ttl := in.Duration("ttl", time.Hour, "how long the token is valid")
	secret := in.vars.Secret("JWT_SECRET", "key of the access tokens, at least 32 bytes", token.CheckSecret)
	if err := in.parse(args); err != nil {
		return err
	}
	if users == (userRange{}) {
		users = userRange{*user, *user}
	} else if *user != 0 {
		return usagef("token: give --user or --users")
	}
	if users.first <= 0 || *ttl <= 0 {
		return usagef("token: --user and --ttl must be positive")
	}
	if !store.Role(*role).Valid() {
		return usagef("token: --role must be buyer, merchant or admin")
	}
	return writeTokens(os.Stdout, token.NewKeeper(*secret), users, *role, *ttl)
}

// maxTokens bounds the tokens that are made at a time, of some 200 bytes each.
const maxTokens = 1_000_000

// userRange is the user ids from first to last, written as 1-5000.
type userRange struct{ first, last int64 }

func (r userRange) MarshalText() ([]byte, error) {
	if r == (userRange{}) {
		return nil, nil
	}
	return fmt.Appendf(nil, "%d-%d", r.first, r.last), nil
}

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

// writeTokens makes a token for each user and writes it on a line.
func writeTokens(w io.Writer, tokens *token.Keeper, users userRange, role string, ttl time.Duration) error {
	buffered := bufio.NewWriter(w)
	for i := range users.last - users.first + 1 {
		raw, err := tokens.Sign(token.Claims{UserID: users.first + i, Role: role}, ttl)
		if err != nil {
			return err
		}
		fmt.Fprintln(buffered, raw)
	}
	return buffered.Flush()
}

func runMigrate(ctx context.Context, args []string) error {
	in := newInput("migrate")
	user := in.String("app-user", "", "also make this database user, or give it its password anew: it may read and write, and not change the schema")
	password := in.vars.Optional("MYSQL_APP_PASSWORD", "the password of the user that --app-user names")
	local, allowGalera := in.vars.MySQLSettings()
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	if (*user == "") != (*password == "") {
		return usagef("migrate: --app-user and MYSQL_APP_PASSWORD belong together")
	}
	durability := telemetry.Durability{DB: db, Local: *local, AllowGalera: *allowGalera}
	if err := durability.Check(ctx); err != nil {
		return err
	}
	version, err := db.Migrate(ctx)
	if err != nil {
		return err
	}
	fmt.Println("schema version", version)
	if *user == "" {
		return nil
	}
	if err := db.EnsureUser(ctx, *user, *password); err != nil {
		return err
	}
	fmt.Printf("database user %s may read and write\n", *user)
	return nil
}

func runQueues(ctx context.Context, args []string) error {
	in := newInput("queues")
	name, dlq := in.vars.Queues()
	if err := in.parse(args); err != nil {
		return err
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return fmt.Errorf("AWS_…: %w", err)
	}
	if err := localstack.CreateQueues(ctx, sqs.NewFromConfig(cfg), *name, *dlq); err != nil {
		return err
	}
	fmt.Printf("queues %s and %s are there\n", *name, *dlq)
	return nil
}

func runProductAdd(ctx context.Context, args []string) error {
	in := newInput("product add")
	p := order.Product{}
	in.Int64Var(&p.ID, "id", 0, "id of the product; 0 takes the next free one")
	in.StringVar(&p.Name, "name", "", "name that buyers see")
	in.StringVar(&p.Description, "description", "", "description that buyers see")
	in.Int64Var(&p.Price, "price", 0, "price of one unit in minor units, such as cents")
	in.StringVar(&p.Currency, "currency", "EUR", "ISO 4217 code of the price")
	in.Int64Var(&p.Stock, "stock", 0, "units on sale")
	in.Int64Var(&p.LimitPerUser, "limit", 0, "most units that one user may buy; 0 is no limit")
	in.timeVar(&p.StartsAt, "starts", "start of the sale in RFC 3339, such as 2026-11-27T08:00:00Z; none if not given")
	in.timeVar(&p.EndsAt, "ends", "end of the sale, likewise")
	in.StringVar((*string)(&p.State), "state", string(order.OnSale), "on_sale or off_sale")
	in.Int64Var(&p.Buckets, "buckets", 0, bucketsUsage)
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	added, err := db.AddProduct(ctx, p)
	if err != nil {
		return err
	}
	fmt.Printf("product %d: %s, %d units at %s%s\n", added.ID, plaintext.Escape(added.Name), p.Stock,
		order.Money(added.Price, added.Currency), inBuckets(added))
	return nil
}

// timeVar declares a flag that is a time of RFC 3339.
func (in *input) timeVar(t *time.Time, name, usage string) {
	in.Func(name, usage, func(text string) (err error) {
		*t, err = order.ParseTime(text)
		return err
	})
}

const bucketsUsage = "number of buckets, 2 to 64, over which the units are spread, so that several Redis masters can sell them; 0 for none"

// inBuckets says into how many buckets a product is split, if it is.
func inBuckets(p order.Product) string {
	if p.Buckets == 0 {
		return ""
	}
	return fmt.Sprintf(", in %d buckets", p.Buckets)
}

// runProductSet changes MySQL first. If it dies before Redis knows, the same command again does the rest, and so does
// one without a change.
func runProductSet(ctx context.Context, args []string) error {
	in := newInput("product set")
	id := in.Int64("id", 0, "id of the product")
	to := order.Product{}
	in.StringVar(&to.Name, "name", "", "name that buyers see")
	in.StringVar(&to.Description, "description", "", "description that buyers see")
	in.Int64Var(&to.Price, "price", 0, "price of one unit in minor units, such as cents")
	in.Int64Var(&to.LimitPerUser, "limit", 0, "most units that one user may buy; 0 is no limit")
	in.timeVar(&to.StartsAt, "starts", "start of the sale in RFC 3339, such as 2026-11-27T08:00:00Z")
	in.timeVar(&to.EndsAt, "ends", "end of the sale, likewise")
	in.StringVar((*string)(&to.State), "state", "", "on_sale or off_sale")
	buckets := in.Int64("buckets", -1, bucketsUsage+"; only while nobody can buy it or has")
	in.Bool("no-limit", false, "let users buy as many units as they like")
	in.Bool("no-starts", false, "let the sale have no start")
	in.Bool("no-ends", false, "let the sale have no end")
	change := func(p *order.Product) {
		in.Visit(func(f *flag.Flag) { // only those that were given
			switch f.Name {
			case "name":
				p.Name = to.Name
			case "description":
				p.Description = to.Description
			case "price":
				p.Price = to.Price
			case "limit":
				p.LimitPerUser = to.LimitPerUser
			case "no-limit":
				p.LimitPerUser = 0
			case "starts":
				p.StartsAt = to.StartsAt
			case "no-starts":
				p.StartsAt = time.Time{}
			case "ends":
				p.EndsAt = to.EndsAt
			case "no-ends":
				p.EndsAt = time.Time{}
			case "state":
				p.State = to.State
			}
		})
	}
	dsn, redisURL := in.vars.MySQLDSN(), in.vars.RedisURL()
	if err := in.parse(args); err != nil {
		return err
	}
	if *id <= 0 {
		return usagef("product set: --id must be positive")
	}
	data, err := openWithoutQueue(*dsn, *redisURL)
	if err != nil {
		return err
	}
	defer data.close()
	db, st := data.store, data.stock
	// The buckets change while the product is off sale: before it is put on sale, or after it is taken off.
	changes := []func(*order.Product){change}
	if *buckets >= 0 {
		changes = []func(*order.Product){func(*order.Product) {}, change}
	}
	var p order.Product
	isSplit := *buckets < 0
	for i, change := range changes {
		if p, err = db.UpdateProduct(ctx, *id, change); errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("there is no product %d", *id)
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
		after, err := split(ctx, db, st, p, *buckets)
		switch {
		case err == nil:
			p, isSplit = after, true
		case i == len(changes)-1:
			return err
		}
	}
	fmt.Printf("product %d: %s, %s at %s%s\n", p.ID, plaintext.Escape(p.Name), p.State, order.Money(p.Price, p.Currency), inBuckets(p))
	return nil
}

// split spreads the units of a product over buckets, in MySQL first. Redis has its settings, so that it sells nothing if
// MySQL says so. Should this die before Redis knows of the buckets, the same command again does the rest, or reconcile.
func split(ctx context.Context, db *store.Store, st *stock.Stock, p order.Product, buckets int64) (order.Product, error) {
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
				return p, fmt.Errorf("product %d cannot be split now: %d orders of it are on their way", p.ID, level.Reservations)
			}
		}
	}
	if p, err = db.Split(ctx, p.ID, buckets); err != nil {
		return p, err
	}
	r := reconcile.Reconciler{Redis: st, MySQL: db, Apply: true}
	for _, id := range loaded {
		if _, err := r.Product(ctx, id); err != nil {
			return p, fmt.Errorf("MySQL has the buckets; repeat the command for Redis to have them too: %w", err)
		}
	}
	return p, nil
}

func runProductList(ctx context.Context, args []string) error {
	in := newInput("product list")
	asJSON := in.Bool("json", false, "print JSON")
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	products := []order.Product{}
	for after := int64(0); ; {
		page, err := db.Products(ctx, after, store.MaxPage)
		if err != nil {
			return err
		}
		products = append(products, page...)
		if len(page) < store.MaxPage {
			break
		}
		after = page[len(page)-1].ID
	}
	for i := range products {
		if p := &products[i]; p.Buckets > 0 {
			units, err := db.Stocks(ctx, p.StockIDs())
			if err != nil {
				return err
			}
			for _, n := range units {
				p.Stock += n
			}
		}
	}
	if *asJSON {
		return printJSON(products)
	}
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tab, "id\tstate\tstock\tbuckets\tprice\tlimit\tstarts\tends\tname\t")
	for _, p := range products {
		fmt.Fprintf(tab, "%d\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t\n", p.ID, p.State, p.Stock,
			orDash(p.Buckets > 0, p.Buckets), order.Money(p.Price, p.Currency), orDash(p.LimitPerUser != 0, p.LimitPerUser), orDash(!p.StartsAt.IsZero(), p.StartsAt.Format(time.RFC3339)),
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

// runUserRole also ends the user's sessions, whose tokens carry the old role.
func runUserRole(ctx context.Context, args []string) error {
	in := newInput("user role")
	email := in.String("email", "", "e-mail address of the user")
	role := in.String("role", "", "buyer, merchant or admin")
	db, err := in.parseAndOpenStore(args)
	if err != nil {
		return err
	}
	defer db.Close()
	user, err := userByEmail(ctx, db, *email)
	if err != nil {
		return err
	}
	if err := db.SetRole(ctx, user.ID, store.Role(*role)); err != nil {
		return err
	}
	ended, err := db.EndSessions(ctx, user.ID)
	if err != nil {
		return fmt.Errorf("the role is set; repeat the command to end the user's sessions too: %w", err)
	}
	fmt.Printf("user %d (%s) is now %s; %d sessions ended\n", user.ID, plaintext.Escape(user.Email), *role, len(ended))
	return nil
}

// runRestock changes MySQL first. If it dies before Redis knows, the same command again does the rest.
func runRestock(ctx context.Context, args []string) error {
	in := newInput("restock")
	product := in.Int64("product", 0, "id of the product")
	units := in.Int64("units", 0, "units to add; negative to take out units that are for sale")
	id := in.String("id", "", "id of the restock, such as the number of the delivery: the same id is applied once")
	dsn, redisURL := in.vars.MySQLDSN(), in.vars.RedisURL()
	if err := in.parse(args); err != nil {
		return err
	}
	if *id == "" {
		return usagef("restock: --id is not given; choose one, or use %s", uuid.NewString())
	}
	data, err := openWithoutQueue(*dsn, *redisURL)
	if err != nil {
		return err
	}
	defer data.close()
	db, st := data.store, data.stock
	if *units < 0 {
		return correct(ctx, data, *product, *units, *id)
	}
	done, err := db.Restock(ctx, *product, *units, *id)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("there is no product %d", *product)
	}
	if err != nil {
		return err
	}
	added, err := buckets.Restock(ctx, st, done)
	if err != nil {
		return fmt.Errorf("MySQL has the units; repeat the command for Redis to have them too: %w", err)
	}
	switch {
	case done.Applied:
		fmt.Printf("product %d: %d units added, %d in stock\n", *product, *units, done.Balance)
	case added:
		fmt.Printf("product %d: restock %s was in MySQL already and is in Redis now\n", *product, *id)
	default:
		fmt.Printf("product %d: restock %s was applied before; nothing changed\n", *product, *id)
	}
	return nil
}

func printJSON(value any) error { return writeJSON(os.Stdout, value) }

func writeJSON(w io.Writer, value any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(value)
}

// correct takes units out of a product, of those for sale.
func correct(ctx context.Context, data parts, product, units int64, id string) error {
	done, err := buckets.Mover{Redis: data.stock, MySQL: data.store}.Correct(ctx, product, -units, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("there is no product %d", product)
	case errors.Is(err, store.ErrTooFew):
		return fmt.Errorf("product %d: fewer than %d units are for sale; nothing changed", product, -units)
	case err != nil:
		return err
	case done.Applied:
		fmt.Printf("product %d: %d units taken out, %d in stock\n", product, -units, done.Balance)
	default:
		fmt.Printf("product %d: restock %s was applied before; nothing changed\n", product, id)
	}
	return nil
}
