//! Pictures in terminals that can show them.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How a terminal is given a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Kitty's graphics protocol, which Ghostty and Konsole speak too.
    Kitty,
    /// The inline images of iTerm2, which WezTerm and mintty speak too.
    Iterm,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// In cells.
    columns: u16,
    /// In pixels; 0 where it does not tell.
    width: u16,
}

/// The protocol of the terminal that these environment variables tell of; none inside a multiplexer, which would draw
/// over the picture.
pub(crate) fn protocol(variable: &dyn Fn(&str) -> Option<String>) -> Option<Protocol> {
    let value = |name: &str| variable(name).unwrap_or_default();
    let (term, program) = (value("TERM"), value("TERM_PROGRAM"));
    let is_set = |name: &str| !value(name).is_empty();
    if is_set("TMUX") || term.starts_with("tmux") || term.starts_with("screen") {
        return None;
    }
    if is_set("KITTY_WINDOW_ID")
        || is_set("KONSOLE_VERSION")
        || ["xterm-kitty", "xterm-ghostty"].contains(&term.as_str())
    {
        return Some(Protocol::Kitty);
    }
    // iTerm2 sets a variable that ssh passes on.
    let is_iterm =
        ["iTerm.app", "WezTerm", "mintty"].contains(&program.as_str()) || value("LC_TERMINAL") == "iTerm2";
    is_iterm.then_some(Protocol::Iterm)
}

/// The size of the terminal at standard output.
pub(crate) fn terminal() -> Option<Terminal> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(Terminal { columns: size.ws_col, width: size.ws_xpixel })
}

/// What to print for a picture of so many columns of pixels; one that is wider than the terminal is made as wide.
pub(crate) fn picture(png: &[u8], width: usize, protocol: Protocol, terminal: Option<Terminal>) -> String {
    let encoded = STANDARD.encode(png);
    match protocol {
        Protocol::Iterm => {
            // Terminals of this protocol shrink a picture that is too wide by themselves.
            format!("\x1b]1337;File=inline=1;size={};preserveAspectRatio=1:{encoded}\x07", png.len())
        }
        Protocol::Kitty => {
            let too_wide =
                terminal.filter(|terminal| terminal.width > 0 && width > usize::from(terminal.width));
            kitty(&encoded, too_wide.map(|terminal| terminal.columns))
        }
    }
}

/// A PNG file goes in pieces of 4096 letters, of which the first says what they are; q=2 keeps the terminal from
/// answering.
fn kitty(encoded: &str, columns: Option<u16>) -> String {
    const PIECE: usize = 4096;
    let mut text = String::new();
    let pieces = encoded.len().div_ceil(PIECE);
    for place in 0..pieces {
        let piece = &encoded[PIECE * place..encoded.len().min(PIECE * (place + 1))];
        let more = u8::from(place + 1 < pieces);
        let fitted = columns.map(|columns| format!(",c={columns}")).unwrap_or_default();
        let control = if place == 0 { format!("a=T,f=100,q=2{fitted},") } else { String::new() };
        write!(text, "\x1b_G{control}m={more};{piece}\x1b\\").expect("a text grows");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<Protocol> {
        protocol(&|name| {
            variables.iter().find(|variable| variable.0 == name).map(|variable| variable.1.to_owned())
        })
    }

    #[test]
    fn terminals_are_known_by_their_environment() {
        assert_eq!(of(&[("TERM", "xterm-256color")]), None);
        assert_eq!(of(&[("TERM", "xterm-kitty")]), Some(Protocol::Kitty));
        assert_eq!(of(&[("TERM", "xterm-256color"), ("KONSOLE_VERSION", "240802")]), Some(Protocol::Kitty));
        assert_eq!(of(&[("TERM_PROGRAM", "WezTerm")]), Some(Protocol::Iterm));
        assert_eq!(of(&[("TERM", "xterm-256color"), ("LC_TERMINAL", "iTerm2")]), Some(Protocol::Iterm));
        assert_eq!(of(&[("TERM", "tmux-256color"), ("KITTY_WINDOW_ID", "1")]), None);
        assert_eq!(of(&[("TERM", "xterm-kitty"), ("TMUX", "/tmp/tmux-0/default,1,0")]), None);
    }

    #[test]
    fn a_picture_goes_in_pieces() {
        let png = vec![7; 6000];
        let text = picture(&png, 100, Protocol::Kitty, None);
        let pieces: Vec<&str> = text.split_terminator("\x1b\\").collect();
        assert_eq!(pieces.len(), 2);
        let first = pieces[0].strip_prefix("\x1b_Ga=T,f=100,q=2,m=1;").unwrap();
        let second = pieces[1].strip_prefix("\x1b_Gm=0;").unwrap();
        assert_eq!(STANDARD.decode([first, second].concat()).unwrap(), png);
        let narrow = Some(Terminal { columns: 80, width: 640 });
        assert!(picture(&png, 1000, Protocol::Kitty, narrow).starts_with("\x1b_Ga=T,f=100,q=2,c=80,m=1;"));
        assert!(picture(&png, 600, Protocol::Kitty, narrow).starts_with("\x1b_Ga=T,f=100,q=2,m=1;"));
    }

    #[test]
    fn iterm_is_told_the_size() {
        assert_eq!(
            picture(b"png", 1, Protocol::Iterm, None),
            "\x1b]1337;File=inline=1;size=3;preserveAspectRatio=1:cG5n\x07"
        );
    }
}
