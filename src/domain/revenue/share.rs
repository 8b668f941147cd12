//! Dividing amounts so that nothing is lost: all of it in whole minor units.

/// `n / d`, to the nearest whole number, halves away from zero. `d` is above zero.
pub fn rounded(n: i128, d: i128) -> i128 {
    let half = if n < 0 { -d } else { d };
    (2 * n + half) / (2 * d)
}

/// `total` in proportion to `weights`, by the largest remainder: the parts add up to the total, and each is less than one
/// from its exact share. Without any weight, all goes to the first.
pub fn allocated(total: i128, weights: &[i128]) -> Vec<i128> {
    let sum: i128 = weights.iter().sum();
    if sum == 0 {
        return (0..weights.len()).map(|at| if at == 0 { total } else { 0 }).collect();
    }
    let sign = sum.signum();
    let exact = |weight: &i128| total * weight * sign;
    let mut parts: Vec<i128> = weights.iter().map(|weight| exact(weight).div_euclid(sum.abs())).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(exact(&weights[*at]).rem_euclid(sum.abs())));
    let mut left = total - parts.iter().sum::<i128>();
    for at in order {
        if left == 0 {
            break;
        }
        parts[at] += 1;
        left -= 1;
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_are_whole_and_add_up() {
        assert_eq!(allocated(100, &[1, 1, 1]), [34, 33, 33]);
        assert_eq!(allocated(-100, &[1, 1, 1]), [-33, -33, -34]);
        assert_eq!(allocated(10, &[2900, -900]), [15, -5]);
        assert_eq!(allocated(7, &[0, 0]), [7, 0]);
        assert!(allocated(0, &[]).is_empty());
        assert_eq!([rounded(5, 2), rounded(-5, 2), rounded(4, 3), rounded(0, 7)], [3, -3, 1, 0]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(
            total in -1_000_000_000i64..1_000_000_000,
            weights in proptest::collection::vec(-1_000_000i64..1_000_000, 1..12),
        ) {
            let (total, weights) = (i128::from(total), weights.into_iter().map(i128::from).collect::<Vec<_>>());
            let (parts, sum) = (allocated(total, &weights), weights.iter().sum::<i128>());
            prop_assert_eq!(parts.iter().sum::<i128>(), total);
            for (part, weight) in parts.iter().zip(&weights).filter(|_| sum != 0) {
                prop_assert!((part * sum - total * weight).abs() < sum.abs(), "{part} of {weight}");
            }
        }
    }
}
