// Colours for values: Cividis, which rises evenly in lightness and reads alike with every kind of colour sight.

const STOPS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const CHANNELS = STOPS.map((stop) => [1, 3, 5].map((start) => parseInt(stop.slice(start, start + 2), 16)));

/** The colour of a share from 0 to 1, and that of text on it, black or white, whichever stands out more. */
export function colour(share) {
  const at = Math.min(Math.max(share, 0), 1) * (CHANNELS.length - 1);
  const low = Math.min(Math.floor(at), CHANNELS.length - 2);
  const mixed = CHANNELS[low].map((channel, index) => Math.round(channel + (at - low) * (CHANNELS[low + 1][index] - channel)));
  return { fill: `rgb(${mixed.join(" ")})`, ink: luminance(mixed) > 0.179 ? "#000" : "#fff" };
}

export const gradient = (turned) => `linear-gradient(to right, ${(turned ? [...STOPS].reverse() : STOPS).join(", ")})`;

/** Relative luminance, as WCAG defines it. */
function luminance(channels) {
  const [red, green, blue] = channels.map((channel) => {
    const share = channel / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
