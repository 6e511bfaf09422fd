/** undici ships types for its index only; this is the file behind its `Pool`. */
declare module 'undici/lib/dispatcher/pool.js' {
  export { Pool as default } from 'undici';
}
