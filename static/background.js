/**
 * Another background behind the portrait: none, a colour, a picture, or its own out of focus.
 *
 * Place in the flow: beside the video in `layers.js`. The server sends pictures twice as high, colour above and matte below; WebGL puts
 * the person before the background, one picture of the video after the other. Pictures as filmed pass by: the video shows itself.
 *
 * What shines through hair is part background, as filmed. Its colour is taken out: around every such pixel the colours of person and
 * background are averaged by the matte, and what the person adds is what remains (the blur fusion of Forte, 2021).
 *
 * Invariants:
 *   - a packed picture is never shown as if it were not, and the other way round: its shape tells, whatever was asked for;
 *   - what a canvas shows is what the video shows, never later than its next picture;
 *   - without WebGL, or once it is lost, everything is as filmed.
 */

export const MODES = ["filmed", "blur", "colour", "image", "transparent"];

/** Side of what is blurred; the background is out of focus anyway. */
const SOFT = 64;

const VERTEX = `
attribute vec2 corner;
varying vec2 at;
void main() {
  at = corner * 0.5 + 0.5;
  gl_Position = vec4(corner, 0.0, 1.0);
}`;

/** Rows of the picture go down, those of WebGL go up; the clamp keeps colour and matte from mixing where they meet. */
const PACKED = `
precision mediump float;
varying vec2 at;
uniform sampler2D frame;
uniform vec2 size;
vec3 colourAt(vec2 p) {
  return texture2D(frame, vec2(p.x, clamp(p.y, 0.75 / size.y, 1.0 - 0.75 / size.y) * 0.5)).rgb;
}
float matteAt(vec2 p) {
  float seen = texture2D(frame, vec2(p.x, 0.5 + clamp(p.y, 0.75 / size.y, 1.0 - 0.75 / size.y) * 0.5)).g;
  return clamp((seen - 0.04) / 0.92, 0.0, 1.0);
}`;

const SOFTEN = `${PACKED}
void main() {
  vec2 p = vec2(at.x, 1.0 - at.y);
  vec4 sum = vec4(0.0);
  for (int y = 0; y < 4; y++) for (int x = 0; x < 4; x++) {
    vec2 q = p + (vec2(float(x), float(y)) - 1.5) / (4.0 * ${SOFT}.0);
    float ground = 1.0 - matteAt(q);
    ground *= ground;
    sum += vec4(colourAt(q) * ground, ground);
  }
  gl_FragColor = sum / 16.0;
}`;

const BLUR = `
precision mediump float;
varying vec2 at;
uniform sampler2D soft;
uniform vec2 step;
void main() {
  vec4 sum = vec4(0.0);
  float total = 0.0;
  for (int i = -9; i <= 9; i++) {
    float weight = exp(-float(i * i) / 32.0);
    sum += texture2D(soft, at + float(i) * step) * weight;
    total += weight;
  }
  gl_FragColor = sum / total;
}`;

const COMPOSE = `${PACKED}
uniform sampler2D behind;
uniform int mode;
uniform vec3 colour;
uniform vec2 cover;
vec3 pure(vec2 p, vec3 seen, float matte) {
  vec4 person = vec4(0.0), ground = vec4(0.0);
  for (int y = -3; y <= 3; y++) for (int x = -3; x <= 3; x++) {
    vec2 q = p + vec2(float(x), float(y)) * 2.0 / size;
    vec3 c = colourAt(q);
    float m = matteAt(q);
    person += vec4(c * m, m);
    ground += vec4(c * (1.0 - m), 1.0 - m);
  }
  vec3 f = person.rgb / max(person.a, 0.01), b = ground.rgb / max(ground.a, 0.01);
  return clamp(f + matte * (seen - matte * f - (1.0 - matte) * b), 0.0, 1.0);
}
void main() {
  vec2 p = vec2(at.x, 1.0 - at.y);
  vec3 person = colourAt(p);
  float matte = matteAt(p);
  if (matte > 0.0 && matte < 1.0) person = pure(p, person, matte);
  if (mode == 4) { gl_FragColor = vec4(colourAt(p), 1.0); return; }
  if (mode == 0) { gl_FragColor = vec4(person * matte, matte); return; }
  vec3 back = colour;
  if (mode == 2) back = texture2D(behind, (p - 0.5) * cover + 0.5).rgb;
  if (mode == 3) { vec4 soft = texture2D(behind, at); back = soft.rgb / max(soft.a, 0.004); }
  gl_FragColor = vec4(mix(back, person, matte), 1.0);
}`;

const NUMBER = { transparent: 0, colour: 1, image: 2, blur: 3, filmed: 4 };

/** Whether this browser can change backgrounds. */
export function canCompose() {
  return Boolean(window.WebGLRenderingContext && document.createElement("canvas").getContext("webgl"));
}

/** The person before a background, in a canvas over the video. */
export class Background {
  #video;
  #poster;
  #host;
  #gl = null;
  #programs = {};
  #textures = {};
  #targets = [];
  #image = null;
  #waiting = false;
  #size = [0, 0];
  #chosen = { mode: "filmed", colour: [0, 0, 0] };
  canvas = document.createElement("canvas");

  /**
   * @param {HTMLElement} host gets the class `packed` while the canvas is to be seen in place of the video, and `data-background`, the mode
   * @param {HTMLVideoElement} video
   * @param {HTMLImageElement} poster a picture as filmed, whose shape tells packed pictures from others
   * @param {() => void} lost is told when WebGL is lost; the background then is to be as filmed
   */
  constructor(host, video, poster, lost) {
    this.#host = host;
    this.#video = video;
    this.#poster = poster;
    this.canvas.className = "composed";
    this.canvas.setAttribute("aria-hidden", "true");
    this.canvas.addEventListener("webglcontextlost", () => {
      this.#gl = null;
      this.#host.classList.remove("packed");
      lost();
    });
    video.addEventListener("loadeddata", () => this.#follow());
  }

  get mode() {
    return this.#chosen.mode;
  }

  /** Width / height of the person's picture, whatever the video's is. */
  get ratio() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    return width / (this.#isPacked(width, height) ? height / 2 : height);
  }

  /**
   * Change the background.
   * @param {{mode: string, colour?: string, image?: ImageBitmap}} choice one of MODES; `#rrggbb`; an image covers the whole background
   * @returns {boolean} false where this browser cannot: then it is as filmed
   */
  choose({ mode, colour = "#1d2b2a", image = null }) {
    const possible = mode === "filmed" || this.#prepare();
    const rgb = [1, 3, 5].map((from) => parseInt(colour.slice(from, from + 2), 16) / 255 || 0);
    this.#chosen = { mode: possible && !(mode === "image" && !image) ? mode : "filmed", colour: rgb };
    this.#host.dataset.background = this.#chosen.mode;
    if (this.#gl && this.#chosen.mode === "image") this.#takeImage(image);
    this.#compose();
    return possible;
  }

  /** Draw the video's present picture; true when the canvas shows it, until the browser draws the page. */
  draw() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!this.#gl || this.#video.readyState < 2 || !this.#isPacked(width, height)) return false;
    const gl = this.#gl;
    this.#size = [width, height / 2];
    if (this.canvas.width !== width || this.canvas.height !== height / 2) Object.assign(this.canvas, { width, height: height / 2 });
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.#textures.frame);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, this.#video);
    const { mode, colour } = this.#chosen;
    const behind = mode === "blur" ? this.#soften() : this.#textures.image;
    const [w, h] = this.#image ?? [1, 1];
    const wide = (width / (height / 2)) / (w / h);
    this.#run("compose", null, [width, height / 2], { frame: this.#textures.frame, behind }, (uniform) => {
      gl.uniform1i(uniform("mode"), NUMBER[mode]);
      gl.uniform3fv(uniform("colour"), colour);
      gl.uniform2f(uniform("cover"), Math.min(1, wide), Math.min(1, 1 / wide));
    });
    return true;
  }

  /** Look at every picture of the video as it is shown. */
  #follow() {
    if (this.#waiting || !this.#video.srcObject || (this.mode === "filmed" && !this.#host.classList.contains("packed"))) return;
    this.#waiting = true;
    const next = () => {
      this.#waiting = false;
      this.#compose();
    };
    if (this.#video.requestVideoFrameCallback) this.#video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  }

  #compose() {
    // Without a stream the layers below show the last picture.
    if (this.#gl && this.#video.srcObject) this.#host.classList.toggle("packed", this.draw());
    this.#follow();
  }

  #isPacked(width, height) {
    const { naturalWidth, naturalHeight } = this.#poster;
    const filmed = naturalWidth ? naturalHeight / naturalWidth : 1;
    return height / width > 1.5 * filmed;
  }

  /** Blur the background alone, so that the person throws no shadow into it; returns the texture. */
  #soften() {
    const gl = this.#gl;
    const [first, second] = this.#targets;
    this.#run("soften", first, [SOFT, SOFT], { frame: this.#textures.frame });
    this.#run("blur", second, [SOFT, SOFT], { soft: first.texture }, (uniform) => gl.uniform2f(uniform("step"), 1 / SOFT, 0));
    this.#run("blur", first, [SOFT, SOFT], { soft: second.texture }, (uniform) => gl.uniform2f(uniform("step"), 0, 1 / SOFT));
    return first.texture;
  }

  #run(name, target, [width, height], textures, set = () => {}) {
    const gl = this.#gl;
    const { program, uniform } = this.#programs[name];
    gl.bindFramebuffer(gl.FRAMEBUFFER, target?.buffer ?? null);
    gl.viewport(0, 0, width, height);
    gl.useProgram(program);
    Object.entries(textures).forEach(([key, texture], unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.uniform1i(uniform(key), unit);
    });
    gl.uniform2fv(uniform("size"), this.#size);
    set(uniform);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  /** Make ready what drawing needs, once; false where there is no WebGL. */
  #prepare() {
    if (this.#gl) return true;
    const gl = this.canvas.getContext("webgl", { alpha: true, premultipliedAlpha: true, antialias: false, depth: false });
    if (!gl || gl.isContextLost()) return false;
    const programs = { soften: SOFTEN, blur: BLUR, compose: COMPOSE };
    for (const [name, source] of Object.entries(programs)) {
      const program = link(gl, source);
      if (!program) return false;
      const places = new Map();
      const uniform = (key) => places.get(key) ?? places.set(key, gl.getUniformLocation(program, key)).get(key);
      this.#programs[name] = { program, uniform };
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    this.#textures = { frame: texture(gl), image: texture(gl) };
    this.#targets = [0, 1].map(() => {
      const target = { texture: texture(gl, SOFT), buffer: gl.createFramebuffer() };
      gl.bindFramebuffer(gl.FRAMEBUFFER, target.buffer);
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.texture, 0);
      return target;
    });
    this.#gl = gl;
    return true;
  }

  #takeImage(image) {
    const gl = this.#gl;
    this.#image = [image.width, image.height];
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.#textures.image);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
  }
}

/** Any size is allowed without mipmaps and repetition. */
function texture(gl, side = 1) {
  const made = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, made);
  for (const [what, how] of [
    [gl.TEXTURE_MIN_FILTER, gl.LINEAR],
    [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
    [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE],
    [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE],
  ]) gl.texParameteri(gl.TEXTURE_2D, what, how);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, side, side, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
  return made;
}

function link(gl, fragment) {
  const program = gl.createProgram();
  for (const [kind, source] of [
    [gl.VERTEX_SHADER, VERTEX],
    [gl.FRAGMENT_SHADER, fragment],
  ]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.bindAttribLocation(program, 0, "corner");
  gl.linkProgram(program);
  return gl.getProgramParameter(program, gl.LINK_STATUS) ? program : null;
}
