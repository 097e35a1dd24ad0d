package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"stampede/internal/order"
)

// Up keeps a stack with a few products running until the context ends. It prints how to use it by hand, and leaves the
// same for shells in up.env.
func Up(ctx context.Context, size Size) (err error) {
	tell := func(text string) { fmt.Fprintln(os.Stderr, text) }
	f, err := startFleet(ctx, size.Dir, "up", tell)
	stopped := false
	defer func() {
		tell("\nstopping")
		err = errors.Join(err, f.close(!stopped))
	}()
	if err != nil {
		return err
	}

	if err := f.runAll(ctx, size); err != nil {
		return err
	}

	for _, p := range []order.Product{
		{Name: "Concert ticket", Price: 4990, Currency: "EUR", Stock: 500, LimitPerUser: 4},
		{Name: "Sneaker, limited edition", Price: 18900, Currency: "EUR", Stock: 50, LimitPerUser: 1},
		{Name: "Console", Price: 49900, Currency: "EUR", Stock: 10_000},
		{Name: "Poster, to be paid", Price: 30000, Currency: "TWD", Stock: 200, Payment: order.PaymentRequired,
			PayWithin: 5 * time.Minute},
		{Name: "Record, to be paid", Price: 2490, Currency: "EUR", Stock: 200, Payment: order.PaymentRequired,
			PayWithin: 5 * time.Minute},
		{Name: "Tea set, to be paid", Price: 8800, Currency: "CNY", Stock: 200, Payment: order.PaymentRequired,
			PayWithin: 5 * time.Minute},
	} {
		if _, err := f.sale.Ledger.AddProduct(ctx, p); err != nil {
			return err
		}
	}

	// For other terminals.
	variables, err := f.assignments()
	if err != nil {
		return err
	}
	file := filepath.Join(size.Dir, "up.env")
	removeEnv, err := writeEnv(file, variables)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeEnv()) }()

	f.explain(file)

	ended := f.ended()
	for ctx.Err() == nil {
		select {
		case text := <-ended:
			tell(text)
		case <-ctx.Done():
		}
	}
	stopped = true
	return nil
}

// explain prints where everything is, and how to use it by hand; file has the same for shells.
func (f *fleet) explain(file string) {
	tab := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(tab, "Stampede\t%s\n", f.door.URL)
	fmt.Fprintf(tab, "board\t%s\n", f.board())
	fmt.Fprintf(tab, "payments, without money\t%s/admin/books\n", f.pay.URL())
	for _, p := range f.all() {
		if p.Addr != "" {
			fmt.Fprintf(tab, "%s\thttp://%s\n", strings.Replace(p.Name, "-", " ", 1), p.Addr)
		}
	}
	for _, p := range f.all() {
		fmt.Fprintf(tab, "%s admin\thttp://%s/metrics\n", strings.Replace(p.Name, "-", " ", 1), p.Admin)
	}
	fmt.Fprintf(tab, "logs\t%s\n", f.dir)
	tab.Flush()

	source := file
	if !strings.ContainsRune(source, filepath.Separator) {
		source = "." + string(filepath.Separator) + source // a shell looks for a bare name on the path
	}
	fmt.Printf("\nFor curl and ctl in another terminal:\n  . %s\n", source)

	curl := func(options string, product int) string {
		return fmt.Sprintf("curl %s $FRONT/api/orders -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: "+
			"application/json'"+
			" -d '{\"product_id\":%d,\"quantity\":1}'", options, product)
	}
	fmt.Printf("\nOrder a product:\n  %s\n", curl("-i", 1))
	fmt.Printf("\nOrder consoles until Ctrl-C, with the board in view:\n  while sleep 0.05; do %s; done\n",
		curl("-s -o /dev/null", 3))

	fmt.Println("\nCtrl-C stops everything.")
}
