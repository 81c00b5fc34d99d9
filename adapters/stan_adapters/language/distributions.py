"""Stan's distributions by name: which are of integers and which of reals."""

from __future__ import annotations

DISCRETE = frozenset(
    (
        *(
            "bernoulli",
            "bernoulli_logit",
            "bernoulli_logit_glm",
            "beta_binomial",
            "beta_neg_binomial",
            "binomial",
        ),
        *(
            "binomial_logit",
            "binomial_logit_glm",
            "categorical",
            "categorical_logit",
            "categorical_logit_glm",
        ),
        *("dirichlet_multinomial", "discrete_range", "hypergeometric", "multinomial", "multinomial_logit"),
        *(
            "neg_binomial",
            "neg_binomial_2",
            "neg_binomial_2_log",
            "neg_binomial_2_log_glm",
            "ordered_logistic",
        ),
        *(
            "ordered_logistic_glm",
            "ordered_probit",
            "poisson",
            "poisson_binomial",
            "poisson_log",
            "poisson_log_glm",
        ),
    )
)
CONTINUOUS = frozenset(
    (
        *(
            "beta",
            "beta_proportion",
            "cauchy",
            "chi_square",
            "dirichlet",
            "double_exponential",
            "exp_mod_normal",
        ),
        *("exponential", "frechet", "gamma", "gaussian_dlm_obs", "gumbel", "inv_chi_square", "inv_gamma"),
        *("inv_wishart", "inv_wishart_cholesky", "lkj_corr", "lkj_corr_cholesky", "lkj_cov", "logistic"),
        *(
            "loglogistic",
            "lognormal",
            "multi_gp",
            "multi_gp_cholesky",
            "multi_normal",
            "multi_normal_cholesky",
        ),
        *(
            "multi_normal_prec",
            "multi_student_t",
            "multi_student_t_cholesky",
            "normal",
            "normal_id_glm",
            "pareto",
        ),
        *("pareto_type_2", "rayleigh", "scaled_inv_chi_square", "skew_double_exponential", "skew_normal"),
        *(
            "std_normal",
            "student_t",
            "uniform",
            "von_mises",
            "weibull",
            "wiener",
            "wishart",
            "wishart_cholesky",
        ),
    )
)
