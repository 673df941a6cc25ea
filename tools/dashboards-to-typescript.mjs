// Writes each dashboard as a TypeScript file that compiles only where it keeps to Grafana's schema.
//
//   node dashboards-to-typescript.mjs FOLDER FILE.json...
//
// The whole is held against Dashboard. Its types leave open what is in a panel's options and custom fields, so each panel
// is also held against the schema of its type, and each query against that of Prometheus's data source.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const composable = join("node_modules", "@grafana", "schema", "dist", "types", "raw", "composable");
const json = (value) => JSON.stringify(value, null, 1);

// Enumerations of the schema are words or numbers in JSON: the types of literals are loosened to these.
const PLAIN = `
type Plain<T> = T extends string ? (string extends T ? T : \`\${T}\`)
  : T extends number ? (number extends T ? T : T | (\`\${T}\` extends \`\${infer N extends number}\` ? N : never))
  : T extends readonly (infer E)[] ? Plain<E>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
interface Query { refId: string; expr: string; format: "time_series" | "table" | "heatmap"; instant: boolean;
  range: boolean; legendFormat: string; datasource: { type: "prometheus"; uid: string } }
interface Annotation { titleFormat: string; textFormat: string; tagKeys?: string;
  target: Pick<Query, "refId" | "expr" | "instant" | "range" | "datasource"> & { interval: string } }
`;

function schemaOf(type) {
  const versions = join(folder, composable, type.replaceAll("-", ""), "panelcfg");
  if (!existsSync(versions)) throw new Error(`no schema of panels of type ${type}`);
  const [version] = readdirSync(versions);
  const found = readdirSync(join(versions, version)).find((name) => name.endsWith(".gen.d.ts"));
  const path = join(versions, version, found);
  return { path, custom: /interface FieldConfig\b|type FieldConfig\b/.test(readFileSync(path, "utf8")) };
}

for (const file of files) {
  const dashboard = JSON.parse(readFileSync(file, "utf8"));
  const schemas = new Map();
  const checks = [];
  for (const panel of dashboard.panels.filter((one) => one.type !== "row")) {
    if (!schemas.has(panel.type)) schemas.set(panel.type, { name: `P${schemas.size}`, ...schemaOf(panel.type) });
    const { name, custom } = schemas.get(panel.type);
    checks.push(`// ${panel.title}\n(${json(panel.options ?? {})}) satisfies Partial<Plain<${name}.Options>>;`);
    const own = panel.fieldConfig?.defaults?.custom;
    if (own && !custom) throw new Error(`${panel.title}: panels of type ${panel.type} have no custom fields`);
    if (own) checks.push(`(${json(own)}) satisfies Partial<Plain<${name}.FieldConfig>>;`);
    for (const target of panel.targets ?? []) checks.push(`(${json(target)}) satisfies Query;`);
  }
  // What annotations of a Prometheus have beyond the schema, which knows those of Grafana's own alone.
  for (const annotation of dashboard.annotations.list) {
    const { titleFormat, textFormat, tagKeys, target } = annotation;
    checks.push(`(${json({ titleFormat, textFormat, tagKeys, target })}) satisfies Annotation;`);
    for (const own of ["titleFormat", "textFormat", "tagKeys", "target"]) delete annotation[own];
  }
  const imports = [...schemas.values()].map(
    ({ name, path }) => `import type * as ${name} from "./${path.slice(folder.length + 1).replace(/\.d\.ts$/, ".js")}";`,
  );
  writeFileSync(
    join(folder, `${basename(file, ".json")}.mts`),
    [
      'import type { Dashboard } from "@grafana/schema";',
      ...imports,
      PLAIN,
      `(${json(dashboard)}) satisfies Plain<Dashboard>;`,
      ...checks,
      "",
    ].join("\n"),
  );
}
