"""Every number that discovery and its heads use, with where it comes from, in one frozen dataclass.

`DiscoveryConfig` has one part per stage. It is passed from `discover` down to each stage, and no function reads a
number from anywhere else; what stays in the code are guards against division by zero. Another setting is a copy:

    >>> from dataclasses import replace
    >>> config = replace(DEFAULT_CONFIG, gate=GateThresholds(relative=2.0))
    >>> config.gate.relative, config.two_classes.components
    (2.0, (64, 128, 256))

The comment of a value names its source. *Measured*: compared with other values on development draws, which
`docs/research_log.md` lists. *Calibrated*: set between what draws with and without a shortcut gave. *Prototype*: taken
over from the first prototype and not varied since. *By hand*: set once and not varied. *Cost*: a bound on time or
memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Products of three such values are still finite in 64 bits.
LARGEST_LATENT = 1e100


@dataclass(frozen=True)
class GateThresholds:
    """Where the gate stands; calibrated on draws with and without a shortcut (see `docs/discovery.md`, *The gate*).

    Args:
        cosine: Mixtures below it move examples along the class difference: hard examples. With a shortcut the prototype
            measured -0.49 to +0.61, without one -0.90 to -1.00.
        strength: Smallest attribute contrast, in within-group standard deviations.
        ratio: Smallest attribute contrast relative to the class contrast: a shortcut is the easier one.
        association: Smallest association of attribute and label; raised for small `n` by its standard error.
        further_association: The same once an attribute has been found. Its directions take part of the class with
            them, and a style of the class is then easily stronger than what is left of it.
        further_cosine: The same as `cosine` there, with more than two classes. What is left of a strong attribute then
            passes for the class, and unusual examples of the class itself for another attribute: -0.33 to -0.55 on
            pictures, where true further attributes had -0.22 and more.
        class_strength: Smallest class contrast beside the attribute, after subtracting what chance gives.
            Mislabelled examples of well separated classes look like an attribute beside which the class has
            no contrast of its own.
        trimmed_class_strength: The same for a trimmed discriminant's partition of more than two classes: it calls
            some of the hard examples conflicting, which gives the class a contrast where it has none.
        hint_class_strength: The same for known values, which are tested as they were given, not the best of many
            partitions; nothing is subtracted, but what chance gives must be exceeded.
        clear_ratio: From this ratio on, confirmation at one other number of components is enough, otherwise
            two.
        refined_strength: Smallest attribute contrast of a partition refined by cross-fitted EM (two classes).
        relative: Smallest `relative_strength` of such a partition.
        min_conflicts: Fewest conflicting examples.
        trimmed_score: Smallest score of a trimmed discriminant, see `trimmed_score`.
        many_association: The same as `association`, for refined partitions of more than two classes.
        many_relative: The same as `relative`, for them. Lower than for two classes: every value must fit all classes,
            and other starts or pairs of classes must bear it out.
        many_clear_relative: The same where `clear_support` of the other starts end there, or where it stands alone for
            it explains held-out examples best, see `explained`. Without a shortcut half of the starts at most ended at
            0.75 or more, and what stood alone had 0.81.
        support: Share of the other starts whose refinement must end at such a partition, unless it is the one that
            explains held-out examples best.
        support_together: The same for ends that were put together, which are the best of many.
        clear_support: See `many_clear_relative`.
        explained: By how much, in nats per example, that one must explain them better than no attribute does: natural
            styles reached 1.2, shortcuts with which a third conflicts 1.3 to 2.
        explained_cosine: The same as `cosine`, for that one: such shortcuts lie above -0.3, styles at -0.4 to -0.7.
        pairs: Share of the pairs of classes in which the search with two classes must find an attribute, where it
            stands for the support of other starts.
        agreement: Conflicting sets at least this similar (Jaccard) are the same end.
        jaccard: Conflicting sets at least this similar confirm each other.
        association_errors: Standard errors by which the association must exceed that of an independent attribute.
        class_errors: Standard errors by which the class contrast must exceed what chance gives.
        trimmed_position: Excess over the middle, of conflicting examples between two class centres, that scores 1.
        trimmed_separation: Distance of class centres, in standard deviations, from which the score is not reduced.
        hint_errors: Standard errors by which held-out known examples must be predicted beyond chance, with up to
            `few_known` of them and with more; where few are known, as many of Student's t as are as unlikely. A true
            attribute beats chance by 5 or more where many are known, a column that repeats the label with errors by 3
            at most.
        few_known: See `hint_errors`.
        few_chance: Where few values are known, the part of the class contrast by chance that the class must exceed.
            Corrected labels of four classes reach 0.4 of it, true attributes of contrast 2 in 128 dimensions 0.8.
        known_tie: Of an attribute of which few values are known: smallest association by held-out known examples, as a
            share of that by the sampler; it is also to reach `association`.
        named_contrast: Smallest distance of the clusters along a named direction, in standard deviations within a
            cluster. Lower than for candidates without a hint, which had every direction to choose from.
        unlabelled_cosine: An attribute found by unlabelled examples: smallest and largest cosine of class and attribute
            offsets. Styles within the classes lie below, the class difference cut in two above (0.96 and more; a true
            attribute 0.1 to 0.5).
        unlabelled_contrast: Smallest distance of two classes, and of two attribute values, in standard deviations.
        unlabelled_strength: Smallest strength of the attribute: 0.92 and more with a shortcut of contrast 2, 0.62 and
            0.65 in two false alarms of small training sets.
        unlabelled_order: By how much more likely, in nats, one of the two must be the class than the other.
        unlabelled_clear_order: From this many nats on the order is clear: without a shortcut at most 5.7. Below it
            the next two are asked.
        unlabelled_class_spread: Variance between the classes in the pool, relative to the labelled examples: 0.54 to
            0.94 with a weak shortcut, up to 0.36 in noise.
        unlabelled_gain: Standard errors by which held-out unlabelled examples must be told better by class and
            attribute than by the classes alone, shifted and of any shape in the same plane.
        unlabelled_unclear_gain: The same where the order is not clear: with a weak shortcut 1.7 to 6.0.
        unlabelled_agreement: Smallest mean cosine of the attribute with that found without a fold of them.
    """

    cosine: float = -0.8
    strength: float = 2.6
    ratio: float = 1.0
    association: float = 0.15
    further_association: float = 0.6
    further_cosine: float = -0.3
    class_strength: float = 0.7
    trimmed_class_strength: float = 1.5
    hint_class_strength: float = 0.5
    clear_ratio: float = 1.5
    refined_strength: float = 2.9
    relative: float = 1.5
    min_conflicts: int = 5
    trimmed_score: float = 0.95
    many_association: float = 0.4
    many_relative: float = 0.95
    many_clear_relative: float = 0.9
    support: float = 0.5
    support_together: float = 0.55
    clear_support: float = 0.75
    explained: float = 1.2
    explained_cosine: float = -0.4
    pairs: float = 0.5
    agreement: float = 0.6
    jaccard: float = 0.5
    association_errors: float = 3.5
    class_errors: float = 3.0
    trimmed_position: float = 0.13
    trimmed_separation: float = 6.5
    hint_errors: tuple[float, float] = (2.5, 4.0)
    few_known: int = 200
    few_chance: float = 0.7
    known_tie: float = 0.5
    named_contrast: float = 1.5
    unlabelled_cosine: tuple[float, float] = (-0.4, 0.7)
    unlabelled_contrast: float = 0.7
    unlabelled_strength: float = 0.75
    unlabelled_order: float = 2.0
    unlabelled_clear_order: float = 8.0
    unlabelled_class_spread: tuple[float, float] = (0.45, 1.25)
    unlabelled_gain: float = 0.0
    unlabelled_unclear_gain: float = 1.5
    unlabelled_agreement: float = 0.8


@dataclass(frozen=True)
class InputConfig:
    """Which data are enough to tell a minority from chance, and how much of large data is looked at."""

    min_rows: int = 50  # by hand
    min_per_class: int = 5  # by hand: `GateThresholds.min_conflicts` could not be met in a smaller class
    fit_rows: int = 10_000  # cost: candidates are fitted on a sample of this many rows, the assignment covers all
    fit_rows_per_class: int = 50  # by hand: rows that a rare class keeps in that sample
    # Calibrated (two classes): a class this many times as frequent as the other is searched in a sample of equal size.
    unequal: float = 1.5
    # Cost: beyond, search and heads use samples of this many rows, and all others are read in blocks (0.2 GB at 256).
    held_rows: int = 200_000


@dataclass(frozen=True)
class ReductionConfig:
    """Principal components. The randomised SVD is that of Halko, Martinsson and Tropp (2011), by scikit-learn."""

    components: int = 256  # measured: 64 or 128 cost the additive head a point of worst group where 1 % conflict
    max_rows: int = 20_000  # cost: more rows change the components little
    max_covariance_dim: int = 2048  # cost: above this width a randomised SVD is cheaper than the d x d covariance
    rank_tolerance: float = 1e-5  # components with a smaller share of the largest deviation are rounding of float32
    mean_tolerance: float = 1e-7  # the same, relative to the size of the mean latent
    rows_per_component: int = 5  # by hand: with fewer rows per component a covariance says little


@dataclass(frozen=True)
class ProposalConfig:
    """Cheap guesses at which examples conflict; they need only be roughly right, the gate judges what follows."""

    trimmed_ridge: float = 0.02  # prototype: share of the mean variance added to the within-class scatter
    trimmed_rounds: int = 8  # prototype: alternations of trimming and fitting; most data settle before
    margin_folds: int = 5  # convention
    skew_steps: int = 15  # cost: most directions settle in ten
    margin_l2: float = 0.1  # prototype: strong on unit variance, so that the head follows the easiest features
    margin_tolerance: float = 1e-3  # cost: the order of the margins settles long before the optimum


@dataclass(frozen=True)
class MixtureConfig:
    """The additive mixture, its EM (Dempster, Laird and Rubin, 1977), and the split of its offsets."""

    shrinkage: float = 0.05  # prototype: of the covariance towards a multiple of the identity (Friedman, 1989)
    max_iter: int = 60  # cost
    tolerance: float = 1e-5  # nats per row
    folds: int = 10  # by hand: of cross-fitted EM; each example is judged by nine tenths of the data
    rounds: int = 15  # cost: of cross-fitted EM; it stops when no example moves
    window: int = 25  # by hand: half-width, in components, of the window that compares signal and noise


@dataclass(frozen=True)
class TwoClassConfig:
    """Two classes: where proposals are made, and at how many components they are refined."""

    # Measured: partitions refined at 256 components are purer, at 64 they miss less (0.98 and 0.91 where 1 % conflict).
    components: tuple[int, ...] = (64, 128, 256)
    # Measured: 6 or 4. Beyond, noise in the offsets hides part of the minority.
    components_per_conflict: int = 6
    trimmed_components: tuple[int, ...] = (16, 64, 256)  # by hand
    trims: tuple[float, ...] = (0.1, 0.03)  # prototype, and a smaller share for rarer conflicts
    margin_components: int = 8  # by hand
    margin_shares: tuple[float, ...] = (0.02, 0.1)  # two of the prototype's four
    # By hand: leading components cut at zero, for attributes of large variance at shares too low for margins.
    cut_components: int = 2
    same_start: float = 0.8  # cost: starts with conflicting sets at least this similar (Jaccard) are one start
    rivals: int = 2  # cost: partitions beside the best that are looked at as one of several shortcuts


@dataclass(frozen=True)
class NoisyLabelConfig:
    """Wrong labels or a shortcut? Asked where the contrast of the class is below the gate's."""

    # Calibrated: classes with 10 % wrong labels gave up to 3.8, and hard examples among the conflicting ones; beyond,
    # there were none. Shortcuts with a quarter of the labels wrong gave 4.0 to 5.2. Without what chance gives.
    strength: float = 4.0
    association: float = 0.4  # calibrated: styles within the classes stay below
    folds: int = 5  # convention
    ridge: float = 0.3  # by hand: of columns of unit variance, per example
    area: float = 0.55  # calibrated: wrong labels gave 0.44 to 0.57, by chance; shortcuts 0.59 to 0.70
    errors: float = 3.0  # by hand: standard errors by which the area must exceed it
    # Calibrated (more than two classes): area where the values lie less than `strength` apart, and where they do not,
    # and standard errors beyond 0.5. The strongest partitions of wrong labels gave 0.57 at most, by 3 standard errors.
    many_area: tuple[float, float] = (0.65, 0.58)
    many_errors: float = 4.0
    # Calibrated (more than two classes): what passes by its contrast needs so many. Wrong labels of ten classes that
    # passed had -1.2, shortcuts 3.2 (faint digits) and 6 to 34.
    many_least_errors: float = 2.0
    held: float = 0.8  # by hand: share of a partition's conflicting examples that another holds; for many classes, too


@dataclass(frozen=True)
class ManyClassConfig:
    """More than two classes: the trimmed discriminant decides, a mixture may confirm it."""

    # Prototype: the trimmed discriminant gains from more components than the mixture, whose covariance needs many rows.
    components: tuple[int, ...] = (4, 8, 16, 32, 64, 128)
    trimmed_components: tuple[int, ...] = (16, 32, 64, 128, 256)
    trim: float = 0.1  # prototype: 5 to 10 %
    scored: int = 3  # by hand: the gate's score is the mean over so many of the largest numbers of components
    start_components: tuple[int, ...] = (8, 32, 64)  # by hand: of the starts of the refinement
    start_trims: tuple[float, ...] = (0.1, 0.3)  # measured: 0.3 starts better where many conflict
    margin_shares: tuple[float, ...] = (0.05, 0.2)  # measured: likewise 0.2
    same_start: float = 0.8  # cost: starts with conflicting sets at least this similar (Jaccard) are one start
    solved_components: tuple[int, ...] = (8, 16, 32, 64, 128)  # cost
    judged_components: tuple[int, ...] = (8, 16, 32, 64, 128)  # by hand: at which contrasts are compared ...
    borne_out: float = 0.9  # measured: a mixture less similar (Jaccard) to the refined starts is 3 to 10 points worse
    skewed_components: tuple[int, ...] = (4, 8, 16, 32)  # measured on four digits: each is the best in some draw
    same_child: float = 0.95  # cost: ... and of ends put together those with at least so many values alike
    children: int = 16  # cost: ends that are put together, at most; measured: four digits gain little after ten
    patience: int = 8  # cost: ... in a row without a better one
    parents: int = 5  # by hand: the best ends so far, of which two are put together
    least_gain: float = 0.005  # by hand, nats per example: less is no better
    gain_folds: int = 5  # convention
    least_share: float = 1e-4  # by hand: of a value in a class that is taken not to have it
    pairs: int = 15  # cost: of classes, that are looked at one by one; all of up to six classes
    judged_rows: int = 12  # ... with at least so many examples per component: fewer make every contrast larger


@dataclass(frozen=True)
class RefinementConfig:
    """More than two classes: sharpening a partition that no mixture confirms. Measured on Colored MNIST."""

    max_rows: int = 30_000  # cost: of more rows a sample is refined, and what is fitted to it judges the others
    repeats: int = 3  # measured: from starts that miss four fifths the third pass adds little
    stable: float = 0.95  # by hand: conflicting sets at least this similar (Jaccard) are the same
    rounds: int = 8  # measured: 12 and 16 are no better
    averaged: int = 5  # by hand: the result is the mean of the last rounds, so that wavering examples get part weights
    even_rounds: int = 5  # measured: values spread evenly in these, per class afterwards
    folds: int = 3  # measured: 5 is no better
    shrinkage: float = 0.02  # measured: 0.01 to 0.15, more is worse
    class_avoidance: float = 10.0  # measured: 0, 1, 3 and 30 are no better
    temperature: float = 0.5  # measured: latents have heavier tails than a Gaussian; 1 is worse, 0.3 no better
    min_position: float = 0.6  # measured: an example moves only if it lies this far from its own value (0)
    share_position: float = 0.65  # calibrated: as many conflict as lie farther than this
    share_growth: float = 2.0  # by hand: at most this multiple of those that the start calls
    bias_steps: int = 40  # cost: steps of fitting the biases of cells (Sinkhorn, 1967)
    bias_tolerance: float = 1e-6  # cost: ... which end where none moves by more
    bias_rate: float = 0.7  # by hand
    bias_step_limit: float = 3.0  # by hand
    bias_limit: float = 20.0  # measured: 5 loses a tenth of precision and recall


@dataclass(frozen=True)
class SeveralConfig:
    """Several attributes at once."""

    max_attributes: int = 3  # cost: searches that find nothing cost the most, and more shortcuts at once are rare
    max_joint_values: int = 256  # cost: tables of offsets and responsibilities have a row or column per joint value


@dataclass(frozen=True)
class HintConfig:
    """Hints: which columns can be used, the sampler of known values, and the held-out check."""

    min_known: int = 5  # by hand: a value known for fewer examples counts as unknown
    max_values: int = 20  # by hand
    max_distinct: int = 10  # by hand: a numeric column with more distinct values is cut at quantiles
    quantiles: int = 4  # convention: quartiles

    components: tuple[int, ...] = (16, 64, 256)  # by hand: the held-out check chooses
    folds: int = 5  # convention
    min_freedom: int = 10  # by hand: below, cells' own means leave nothing to estimate a variance from
    held_out_rows: int = 5000  # cost
    held_out_known: int = 500  # cost
    held_out_sweeps: int = 80  # cost
    held_out_chains: int = 3  # cost

    sweeps: int = 400  # cost
    sweeps_known: int = 40  # cost: with most values known there is little left to sample
    sweeps_errors: int = 150  # cost: with most values known, some of them wrong
    errors_prior: tuple[float, float] = (1.0, 20.0)  # by hand: of the share of wrong values, as if seen before
    start_errors: float = 0.05  # by hand
    max_errors: float = 0.3  # by hand: beyond, a column is another attribute
    min_errors: float = 0.01  # measured: up to 0.003 without errors; below, a column is taken as it is
    chains: int = 5  # measured: a single chain drifts to a style within the classes in some draws
    burn: float = 1 / 3  # convention: share of the sweeps left out of the averages
    max_shrinkage: float = 0.05  # as of the mixture; less where there are many rows
    orthogonal: float = 30.0  # measured against a flat size: weight of orthogonal offsets, in observations
    max_explained: float = 0.9  # by hand: share of the variance along an offset that the attribute may explain
    aligned: float = 20.0  # by hand: prior of the one aligned share, as aligned ...
    conflicting: float = 2.0  # ... and conflicting examples seen before
    start_margin: float = 0.05  # by hand: starting shares keep this distance from 0 and 1

    named_steps: int = 300  # cost: EM along a named direction
    named_tolerance: float = 1e-6  # nats per row
    named_told: int = 5  # by hand: of more unused named attributes only the number is told
    named_left: float = 1e-3  # of a direction of which less lies in the latents only rounding is left


@dataclass(frozen=True)
class UnlabelledConfig:
    """The mixture of labelled and unlabelled examples. Measured on dominoes x 0.3 and planted draws."""

    min_rows: int = 50  # by hand
    most_scales: float = 1e6  # by hand: so far from the labelled examples is no latent of the same encoder
    components: int = 64  # measured: 32 lose 3 points of worst group, 128 no better
    ranks: int = 512  # cost: of the distances that are compared with those of a normal distribution
    soft_limit: float = 3.0  # measured: without, cars and trucks at 0.7 lose 1 of 3 draws, planted 1 of 4
    axis_components: int = 32  # measured: in 64 the leading axes of 400 examples are noise more often
    axes: int = 3  # cost: directions of larger spread that are tried with two classes
    parts: tuple[float, ...] = (0.35, 0.65)  # prototype: of the class means, that the attribute takes in a start
    sizes: tuple[float, ...] = (0.8, 1.6)  # prototype: half the distance of class and attribute offsets in a start
    rotations: int = 12  # cost: of the classes in the leading axes, with more than two
    first_steps: int = 15  # prototype
    steps: int = 60  # cost
    prior_weight: float = 3.0  # measured: with 1 some draws drift to styles
    pseudo: float = 1.0  # convention
    exchanged_rate: float = 0.02  # by hand
    same: float = 0.9  # by hand: solutions whose attributes have at least this cosine are one
    last_steps: int = 40  # cost
    second_rounds: int = 6  # measured, contrast 2: of 8 orders that one refit leaves open 7 are told
    second_steps: int = 15  # cost
    second_prior_weight: float = 1.0  # measured: with 3 it tells half of them
    min_variance: float = 0.3  # by hand: of the variance along the attribute, what is left within its values
    folds: int = 5  # convention
    plane_steps: int = 60  # cost


@dataclass(frozen=True)
class HeadConfig:
    """Closed-form and logistic heads and the choice among them. Measured on dominoes unless said otherwise."""

    folds: int = 3  # cost
    max_rows: int = 6000  # cost: rows on which heads are compared
    # Cost: rows that a logistic regression is fitted to, at least. Measured: 400,000 gain 0.02 points of worst group,
    # 20,000 lose 0.3 (`benchmarks/head_rows.py`).
    fit_rows: int = 100_000
    fit_rows_per_weight: int = 200  # by hand: the error that so many leave in the loss is a quarter of one per cent
    min_cell: int = 10  # by hand: cells with fewer held-out examples say nothing about a head
    # Measured on 14,700 tweets: the penalty that is best for 6,000 costs the worst group two points there.
    even_rows: int = 20_000
    refit_l2: float = 1.0  # measured: 0.1 and 10 are no better
    refit_trust: float = 10.0  # by hand: directions that rest on all examples are penalised a hundredth of the others
    refit_plain_l2: float = 0.1  # by hand: of the plain head beside it
    # By hand: gain of a head refitted on known values over the hint's own, or over plain training where the gate
    # refuses the hint ...
    refit_errors: float = 1.5
    refit_gap_errors: float = 2.5  # ... where plain training is worse on conflicting ones by so much
    shift_cell: int = 20  # by hand: with fewer held-out examples in a cell nothing is said about intercepts
    shift_steps: int = 80  # cost: steps of evening out the cells by intercepts
    shift_decay: float = 0.95  # by hand: of the length of a step
    cell_floor: float = 5.0  # by hand: a lighter cell counts as if it had this weight
    l2: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)  # grid
    common_scale_rows: int = 20  # by hand: with more examples per component whitening costs nothing
    erm_l2: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)  # grid of plain logistic regression
    shrinkages: tuple[float, ...] = (0.02, 0.05, 0.2, 0.5)  # grid
    default_shrinkage: float = 0.5  # measured against 0.2, two classes
    default_shrinkage_many: float = 0.02  # measured on ten-class Colored MNIST: more directions to lose
    default_l2_several: float = 0.1  # measured on images with two shortcuts
    conflict_weight: float = 0.3  # measured: a plateau from 0.2 to 0.5
    avoidance: float = 3.0  # measured: 10 and 100 lose 1 to 2 points
    hinted_shrinkage: float = 0.05  # by hand: offsets that are posterior means are shrunk already ...
    hinted_avoidance: float = 6.0  # ... so trust the covariance more, and turn away further
    unlabelled_avoidance: float = 100.0  # measured, contrast 2: 6 leaves a quarter of the attribute in the head
    counterfactual_weight: float = 0.3  # measured: 1 and 3 are worse


@dataclass(frozen=True)
class DiscoveryConfig:
    """All settings of discovery and its heads, one part per stage, in the order in which data flow through them.

    Args:
        inputs: Which data are enough.
        reduction: Principal components.
        hints: What the user knows.
        unlabelled: Unlabelled examples beside the labelled ones.
        proposals: Guesses at which examples conflict.
        mixture: The additive mixture and its EM.
        two_classes: The search with two classes.
        many_classes: The search with more.
        refinement: Sharpening a rough partition of many classes.
        gate: What counts as evidence.
        several: Several attributes at once.
        heads: Linear heads for the inferred groups.
    """

    inputs: InputConfig = field(default_factory=InputConfig)
    reduction: ReductionConfig = field(default_factory=ReductionConfig)
    hints: HintConfig = field(default_factory=HintConfig)
    unlabelled: UnlabelledConfig = field(default_factory=UnlabelledConfig)
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    two_classes: TwoClassConfig = field(default_factory=TwoClassConfig)
    noisy_labels: NoisyLabelConfig = field(default_factory=NoisyLabelConfig)
    many_classes: ManyClassConfig = field(default_factory=ManyClassConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    gate: GateThresholds = field(default_factory=GateThresholds)
    several: SeveralConfig = field(default_factory=SeveralConfig)
    heads: HeadConfig = field(default_factory=HeadConfig)


DEFAULT_CONFIG = DiscoveryConfig()
