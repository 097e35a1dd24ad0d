// Buys one unit with a client that is made of the OpenAPI document alone: "paths" is what openapi-typescript generates, and
// the compiler refuses whatever the document does not say. It ends with 0 if the order is completed.
import createClient from "openapi-fetch";

import type { paths } from "./schema.js";

declare const process: { argv: string[] };

const [, , baseUrl, email, password] = process.argv as [string, string, string, string, string];
const client = createClient<paths>({ baseUrl });

// fail ends the program with what the answer says. Every problem has a code, by its type.
function fail(what: string, problem: { code: string; title: string } | undefined): never {
  throw new Error(`${what}: ${problem?.code ?? "no problem document"}`);
}

const registered = await client.POST("/api/register", { body: { email, name: "Ada", password } });
if (!registered.data) fail("register", registered.error);

const login = await client.POST("/api/login", { body: { email, password } });
if (!login.data) fail("log in", login.error);
const { access_token: token, token_type: scheme } = login.data;
client.use({
  onRequest({ request }) {
    request.headers.set("Authorization", `${scheme} ${token}`);
    return request;
  },
});

const listed = await client.GET("/api/products");
if (!listed.data) fail("list products", listed.error);
const product = listed.data.products[0];
if (!product) throw new Error("there are no products");

// The same key twice is one order.
async function place(product_id: number) {
  const { data, error } = await client.POST("/api/orders", {
    params: { header: { "Idempotency-Key": "one-ticket" } },
    body: { product_id, quantity: 1 },
  });
  return data ?? fail("place the order", error);
}
const accepted = await place(product.product_id);
const repeated = await place(product.product_id);
if (repeated.order_id !== accepted.order_id) throw new Error("the same key made two orders");

const decided = await client.GET("/api/orders/{id}", {
  params: { path: { id: accepted.order_id }, query: { wait: "20s" } },
});
if (!decided.data) fail("get the order", decided.error);
const order = decided.data;
if (order.status !== "completed" || order.total_price !== product.price || order.currency !== product.currency) {
  throw new Error(`the order is ${JSON.stringify(order)}`);
}

// One unit is all that a buyer may have, which is a problem with a code and a number of its own.
const refused = await client.POST("/api/orders", { body: { product_id: product.product_id, quantity: 1 } });
if (refused.error?.code !== "limit_exceeded" || refused.error.limit_per_user !== 1) {
  throw new Error(`a second unit: ${JSON.stringify(refused.error ?? refused.data)}`);
}

const history = await client.GET("/api/orders");
if (!history.data) fail("list orders", history.error);
console.log(JSON.stringify(history.data.orders.map(({ order_id, status }) => ({ order_id, status }))));
