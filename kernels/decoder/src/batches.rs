//! Which prompts are read together.

/// Groups of prompts, by index, such that the rows of a group have at most `most` tokens with their padding; a prompt
/// that has more is a group of its own. `bodies` has the tokens of each prompt behind the prefix, `sheet` those that
/// follow each. Prompts of like length come together, so that little is padded.
pub(crate) fn batches(bodies: &[usize], sheet: usize, most: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..bodies.len()).collect();
    order.sort_by_key(|index| bodies[*index]);
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for index in order {
        // The longest comes last, so it decides the padding.
        let row = bodies[index] + sheet;
        match batches.last_mut().filter(|batch| (batch.len() + 1) * row <= most) {
            Some(batch) => batch.push(index),
            None => batches.push(vec![index]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_of_like_length_come_together_within_the_bound() {
        assert_eq!(batches(&[90, 10, 20, 300, 15], 10, 100), [vec![1, 4, 2], vec![0], vec![3]]);
        assert_eq!(batches(&[], 10, 100), Vec::<Vec<usize>>::new());
    }
}
