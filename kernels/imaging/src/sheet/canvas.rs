//! A grey sheet: shades of pixels, letters, and marks.

use noto_sans_mono_bitmap::{FontWeight, RasterHeight, RasterizedChar, get_raster, get_raster_width};

/// A grey picture of 8 bits that sheets are put together of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sheet {
    width: usize,
    height: usize,
    shades: Vec<u8>,
}

const WHITE: u8 = 255;
const BLACK: u8 = 0;
/// Pixels between parts of a sheet.
const GAP: usize = 6;
const LETTER_HEIGHT: usize = 16;
const LETTER_WIDTH: usize = get_raster_width(FontWeight::Regular, RasterHeight::Size16);

/// A caption has room for twenty letters, however narrow the picture is.
const LEAST_CAPTION: usize = 20 * LETTER_WIDTH;

/// Where letters stand in a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    Left,
    Right,
    Top,
    Bottom,
    TopLeft,
    BottomLeft,
}

impl Sheet {
    /// A sheet of these shades.
    ///
    /// # Panics
    ///
    /// If they do not fill the size.
    pub(super) fn of(width: usize, height: usize, shades: Vec<u8>) -> Sheet {
        assert_eq!(shades.len(), width * height, "the shades must fill the size");
        Sheet { width, height, shades }
    }

    /// A line of white letters on black. Letters other than those of ASCII become question marks.
    pub fn text(text: &str) -> Sheet {
        Sheet::lines(text, usize::MAX)
    }

    /// White letters on black, in as many lines as it takes to stay within `width` pixels, or a letter. Nothing is cut:
    /// what tells two ids apart may be their end.
    fn lines(text: &str, width: usize) -> Sheet {
        let letters: Vec<char> = text.chars().collect();
        let lines: Vec<String> =
            letters.chunks((width / LETTER_WIDTH).max(1)).map(|line| line.iter().collect()).collect();
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let (width, height) = (LETTER_WIDTH * longest, LETTER_HEIGHT * lines.len().max(1));
        let mut sheet = Sheet::of(width, height, vec![BLACK; width * height]);
        for (place, line) in lines.iter().enumerate() {
            sheet.write(line, 0, LETTER_HEIGHT * place);
        }
        sheet
    }

    /// The sheet below lines of text, each of which is broken where it would be wider.
    pub(super) fn captioned(self, captions: &[&str]) -> Sheet {
        let width = self.width.max(LEAST_CAPTION);
        let lines: Vec<Sheet> = captions.iter().map(|caption| Sheet::lines(caption, width)).collect();
        Sheet::below(lines.into_iter().chain([self]).collect())
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// `width * height` shades from black to white, x fastest, row 0 at the top.
    pub fn shades(&self) -> &[u8] {
        &self.shades
    }

    /// Sheets from left to right, with black between and below.
    pub fn beside(sheets: Vec<Sheet>) -> Sheet {
        let width =
            sheets.iter().map(|sheet| sheet.width).sum::<usize>() + GAP * sheets.len().saturating_sub(1);
        let height = sheets.iter().map(|sheet| sheet.height).max().unwrap_or(0);
        let mut all = Sheet::of(width, height, vec![BLACK; width * height]);
        let mut x = 0;
        for sheet in sheets {
            all.put(&sheet, x, 0);
            x += sheet.width + GAP;
        }
        all
    }

    /// Sheets from top to bottom, with black between and at the right.
    pub fn below(sheets: Vec<Sheet>) -> Sheet {
        let width = sheets.iter().map(|sheet| sheet.width).max().unwrap_or(0);
        let height =
            sheets.iter().map(|sheet| sheet.height).sum::<usize>() + GAP * sheets.len().saturating_sub(1);
        let mut all = Sheet::of(width, height, vec![BLACK; width * height]);
        let mut y = 0;
        for sheet in sheets {
            all.put(&sheet, 0, y);
            y += sheet.height + GAP;
        }
        all
    }

    /// The sheet with a black frame around it.
    pub fn framed(self) -> Sheet {
        let (width, height) = (self.width + 2 * GAP, self.height + 2 * GAP);
        let mut all = Sheet::of(width, height, vec![BLACK; width * height]);
        all.put(&self, GAP, GAP);
        all
    }

    /// Writes letters at an edge of the picture, in its middle or a corner. A picture that is too low for three lines has
    /// letters at its left and right only: others would cover them.
    pub(super) fn mark(&mut self, text: &str, edge: Edge) {
        const MARGIN: usize = 2;
        if self.height < 3 * LETTER_HEIGHT && !matches!(edge, Edge::Left | Edge::Right) {
            return;
        }
        let (width, height) = (LETTER_WIDTH * text.chars().count(), LETTER_HEIGHT);
        let right = self.width.saturating_sub(width + MARGIN);
        let bottom = self.height.saturating_sub(height + MARGIN);
        let (middle_x, middle_y) =
            (self.width.saturating_sub(width) / 2, self.height.saturating_sub(height) / 2);
        let (x, y) = match edge {
            Edge::Left => (MARGIN, middle_y),
            Edge::Right => (right, middle_y),
            Edge::Top => (middle_x, 0),
            Edge::Bottom => (middle_x, bottom),
            Edge::TopLeft => (MARGIN, 0),
            Edge::BottomLeft => (MARGIN, bottom),
        };
        self.write(text, x, y);
    }

    /// Draws a bar of a round length in the lower right corner, with the length above it, where there is room.
    pub(super) fn draw_scale(&mut self, mm_per_pixel: f64) {
        const LENGTHS_MM: [u32; 8] = [200, 100, 50, 20, 10, 5, 2, 1];
        const THICKNESS: usize = 2;
        const MARGIN: usize = 5;
        let pixels = |mm: u32| (f64::from(mm) / mm_per_pixel).round() as usize;
        let fits = |mm: &u32| (LETTER_WIDTH * 3..=self.width / 3).contains(&pixels(*mm));
        let Some(mm) = LENGTHS_MM.into_iter().find(fits) else { return };
        if self.height < LETTER_HEIGHT + MARGIN + THICKNESS {
            return;
        }
        let (x, y) = (self.width - MARGIN - pixels(mm), self.height - MARGIN - THICKNESS);
        for row in y - 1..y + THICKNESS + 1 {
            for column in x - 1..x + pixels(mm) + 1 {
                let is_bar = (y..y + THICKNESS).contains(&row) && (x..x + pixels(mm)).contains(&column);
                self.shades[column + self.width * row] = if is_bar { WHITE } else { BLACK };
            }
        }
        let text = format!("{mm} mm");
        let x = (self.width - MARGIN).saturating_sub(LETTER_WIDTH * text.len());
        self.write(&text, x, y - LETTER_HEIGHT);
    }

    /// Writes white letters with a black seam, so that they can be read on any picture.
    fn write(&mut self, text: &str, x: usize, y: usize) {
        let glyphs =
            || text.chars().map(glyph).enumerate().map(|(place, glyph)| (x + LETTER_WIDTH * place, glyph));
        for (x, glyph) in glyphs() {
            for [dx, dy] in [[0, 1], [1, 0], [1, 2], [2, 1], [0, 0], [2, 0], [0, 2], [2, 2]] {
                self.cover(&glyph, (x + dx).wrapping_sub(1), (y + dy).wrapping_sub(1), BLACK);
            }
        }
        for (x, glyph) in glyphs() {
            self.cover(&glyph, x, y, WHITE);
        }
    }

    /// Puts a shade where a letter covers the sheet, as far as it does.
    fn cover(&mut self, glyph: &RasterizedChar, x: usize, y: usize, shade: u8) {
        for (dy, row) in glyph.rows().enumerate() {
            for (dx, covered) in row.iter().enumerate() {
                let (column, row) = (x.wrapping_add(dx), y.wrapping_add(dy));
                if column >= self.width || row >= self.height {
                    continue;
                }
                let below = &mut self.shades[column + self.width * row];
                let covered = i32::from(*covered);
                *below = ((i32::from(*below) * (255 - covered) + i32::from(shade) * covered) / 255) as u8;
            }
        }
    }

    /// Puts a sheet on this one; what does not fit is cut.
    fn put(&mut self, sheet: &Sheet, x: usize, y: usize) {
        let columns = sheet.width.min(self.width.saturating_sub(x));
        for row in 0..sheet.height.min(self.height.saturating_sub(y)) {
            let (from, to) = (sheet.width * row, x + self.width * (y + row));
            self.shades[to..to + columns].copy_from_slice(&sheet.shades[from..from + columns]);
        }
    }
}

fn glyph(letter: char) -> RasterizedChar {
    let raster = |letter| get_raster(letter, FontWeight::Regular, RasterHeight::Size16);
    raster(letter).or_else(|| raster('?')).expect("the font has a question mark")
}
