"""The one style sheet of all pages: light and dark, wide and narrow, no font and no picture from elsewhere.

Owns the colours (as custom properties) and the classes that `parts`, `plots`, `curves` and `forest` use.
"""

from __future__ import annotations

STYLE = """
:root{color-scheme:light dark;--fg:#1d2330;--dim:#5b6475;--bg:#fff;--card:#f5f6f9;--line:#d9dde6;
--bar:#3b6fd4;--second:#b4540a;--error:#b3261e;--warning:#8a5a00;--info:#1f6a5a}
@media(prefers-color-scheme:dark){:root{--fg:#e8ebf2;--dim:#a3acbd;--bg:#14171e;--card:#1d222c;--line:#343b49;
--bar:#7aa2f7;--second:#ff9e64;--error:#ff8a80;--warning:#e6b450;--info:#7fd6c2}}
*{box-sizing:border-box}body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);
max-width:60rem;margin:0 auto;padding:2rem 1.25rem 4rem;overflow-wrap:anywhere}body.broad{max-width:76rem}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2.25rem 0 .75rem}
h3{font-size:1rem;margin:0 0 .4rem}h3 .dim{font-weight:400}p{margin:.25rem 0}a{color:inherit}
.dim{color:var(--dim)}code,.rows,pre{font-family:ui-monospace,monospace;font-size:.87em}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0;padding:.5rem .7rem;border-radius:6px;
background:var(--card);border:1px solid var(--line)}details pre{background:var(--bg)}
.facts{display:flex;flex-wrap:wrap;gap:.75rem;margin:1.25rem 0}
.fact{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.6rem .9rem;
min-width:8.5rem;max-width:100%}
.fact b{display:block;font-size:1.35rem;line-height:1.3;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.35rem .75rem .35rem 0;
border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--dim);font-weight:600}
td{min-width:5.5rem}th{overflow-wrap:normal}td.number,th.number{min-width:0;text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
details{border:1px solid var(--line);border-radius:8px;margin:.5rem 0;background:var(--card)}
summary{cursor:pointer;padding:.55rem .9rem}details>div{padding:0 .9rem .8rem}
.mark{font-weight:700}.error,.fail{color:var(--error)}.warning,.cannot_tell{color:var(--warning)}
.info,.pass{color:var(--info)}.banner{border-left:4px solid;padding:.1rem 0 .1rem .8rem;margin:.75rem 0}
.banner p{color:var(--fg)}
ul{margin:.4rem 0;padding-left:1.2rem}figure{margin:0 0 1.75rem;min-width:0}
figcaption{font-weight:600;margin-bottom:.25rem}.wide>table{min-width:100%}.wide{overflow-x:auto}
svg{display:block;overflow:visible}.plot{width:calc(100% - 5rem);margin:.4rem 1.25rem .2rem 3.75rem}
.bar{fill:var(--bar)}.axis{stroke:var(--dim);stroke-width:1}.grid{stroke:var(--line);stroke-width:1}
.label{fill:var(--dim);font-size:11px}
.first,.second{fill:none;stroke:var(--bar);stroke-width:1.75;vector-effect:non-scaling-stroke;
stroke-linejoin:round}.second{stroke:var(--second)}
.band{fill:var(--bar);opacity:.22}.dot{fill:var(--bar)}.dot.two{fill:var(--second)}
.cut{stroke:var(--dim);stroke-dasharray:4 3}.limit{stroke:var(--error);stroke-width:1.5;stroke-dasharray:3 3}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;color:var(--dim);font-size:.87em;
margin:.15rem 0 0 3.75rem}
.legend i{display:inline-block;width:1rem;height:.25rem;border-radius:2px;background:var(--bar);
vertical-align:middle;margin-right:.4rem}.legend i.two{background:var(--second)}
.small{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,25rem),1fr));gap:0 1.5rem}
.counts{display:grid;grid-template-columns:minmax(5rem,auto) 1fr auto;gap:.3rem .75rem;align-items:center;
margin:.5rem 0}.counts svg{width:100%;height:14px}
.counts span:nth-child(3n){font-variant-numeric:tabular-nums}
.forest{display:grid;grid-template-columns:minmax(9rem,17rem) minmax(8rem,1fr) minmax(auto,15rem);
gap:0 1.5rem;align-items:center;margin:0 0 1.5rem}.forest .row{display:contents}
.forest .row>span{padding:.35rem 0}.forest .picture{position:relative;align-self:stretch;min-height:26px}
.picture>svg{position:absolute;inset:0;width:100%;height:100%}.forest .scale{width:100%;height:24px}
.forest .figures{font-variant-numeric:tabular-nums;width:15rem}.ends{overflow:visible}
.whisker{stroke:var(--bar);stroke-width:2}
.arms{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,16rem),1fr));gap:.25rem 1rem}
.arms>div{min-width:0}.item{border-top:1px solid var(--line);padding:.9rem 0}
.grades>span{margin-right:1rem}.grades b{font-weight:600}.right{color:var(--info)}.wrong{color:var(--error)}
label{margin-right:1rem;cursor:pointer}:focus-visible{outline:2px solid var(--bar);outline-offset:2px}
body:has(#changed:checked) .same{display:none}body:has(#errors:checked) .fine{display:none}
@media(max-width:640px){td,th{padding-right:.5rem}body{padding:1.25rem .9rem 3rem}
.fact{flex:1 1 40%;min-width:0}.fact b{font-size:1.15rem}.forest{grid-template-columns:1fr}
.forest .row{display:block;padding:.3rem 0;
border-top:1px solid var(--line)}
.forest .row>span{padding:.1rem 0;display:block}.forest .figures{width:auto}
.counts{grid-template-columns:minmax(4rem,40%) 1fr auto}}
@media print{details{break-inside:avoid}.item{break-inside:avoid}}
"""
