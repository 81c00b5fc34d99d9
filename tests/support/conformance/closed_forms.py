"""Closed forms that numpy and scipy lack, for the bank's expectations."""

from __future__ import annotations

import numpy as np
import scipy.special as special
import scipy.stats as stats


def lmgamma(order, x):
    """The log of the multivariate gamma function."""
    order, x = np.broadcast_arrays(order, x)
    terms = [
        n * (n - 1) / 4 * np.log(np.pi) + special.gammaln(value + (1 - np.arange(1, n + 1)) / 2).sum()
        for n, value in zip(order.ravel(), x.ravel(), strict=True)
    ]
    return np.array(terms).reshape(x.shape)


def log_sum_exp(x):
    return special.logsumexp(x)


def softmax(x):
    return special.softmax(x)


def quantile(x, p):
    """R's type 7, as Stan's `quantile`."""
    return np.quantile(x, p)


def squared_distances(x):
    """Of the rows of (N, D), as (N, N)."""
    return ((x[:, None] - x) ** 2).sum(-1)


def matern32(x, sigma, scale):
    z = np.sqrt(3 * squared_distances(x)) / scale
    return sigma**2 * (1 + z) * np.exp(-z)


def matern52(x, sigma, scale):
    z = np.sqrt(5 * squared_distances(x)) / scale
    return sigma**2 * (1 + z + z**2 / 3) * np.exp(-z)


def signed_qr(x):
    """The thin QR decomposition with a positive diagonal of R, as Stan has it."""
    q, r = np.linalg.qr(x)
    signs = np.sign(np.diag(r))
    return q * signs, (r.T * signs).T


def recursion(x, a):
    """r[0] = x[0], r[n] = a r[n-1] + x[n]."""
    result = [x[0]]
    for value in x[1:]:
        result.append(a * result[-1] + value)
    return np.array(result)


def bisected(square):
    low, high = 0.0, square
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if middle**2 > square else (middle, high)
    return high


def skew_normal_lcdf(y, mu, sigma, alpha):
    z = (y - mu) / sigma
    return np.log(special.ndtr(z) - 2 * special.owens_t(z, alpha))


def exp_mod_normal_lpdf(y, mu, sigma, rate):
    inside = mu + rate * sigma**2 - y
    return (
        np.log(rate / 2)
        + rate / 2 * (2 * mu + rate * sigma**2 - 2 * y)
        + np.log(special.erfc(inside / (np.sqrt(2) * sigma)))
    )


def exp_mod_normal_lcdf(y, mu, sigma, rate):
    u, v = rate * (y - mu), rate * sigma
    return np.log(special.ndtr(u / v) - np.exp(-u + v**2 / 2 + special.log_ndtr((u - v**2) / v)))


def skew_laplace_lpdf(y, mu, sigma, tau):
    weight = np.where(y < mu, (1 - tau) * (mu - y), tau * (y - mu))
    return np.log(2 * tau * (1 - tau) / sigma) - 2 / sigma * weight


def skew_laplace_lcdf(y, mu, sigma, tau):
    below = np.log(tau) - 2 / sigma * (1 - tau) * np.maximum(mu - y, 0)
    above = np.log1p(-(1 - tau) * np.exp(-2 / sigma * tau * np.maximum(y - mu, 0)))
    return np.where(y < mu, below, above)


def inv_chi_square_lpdf(y, nu):
    return -nu / 2 * np.log(2) - special.gammaln(nu / 2) - (nu / 2 + 1) * np.log(y) - 1 / (2 * y)


def ordered_lpmf(y, eta, cuts, cdf):
    """Categories from 1, with cdf the link's distribution function."""
    above = np.concatenate([cuts, [np.inf]])[np.asarray(y) - 1]
    below = np.concatenate([[-np.inf], cuts])[np.asarray(y) - 1]
    return np.log(cdf(eta - below) - cdf(eta - above))


def multi_student_t_lpdf(y, nu, mu, sigma):
    return stats.multivariate_t.logpdf(y, mu, sigma, nu)


def dirichlet_lpdf(p, alpha):
    return special.gammaln(alpha.sum()) + ((alpha - 1) * np.log(p) - special.gammaln(alpha)).sum()


def lkj_lpdf(matrix, eta):
    """Of a correlation matrix of 3: the constant by vine's beta integrals."""
    log_constant = 0.0
    for k in range(1, 3):
        shape = eta + (3 - k - 1) / 2
        log_constant += (3 - k) * (special.betaln(shape, shape) + (2 * shape - 1) * np.log(2))
    return (eta - 1) * np.linalg.slogdet(matrix)[1] - log_constant


def between(distribution, low, high, *arguments):
    """The log probability of (low, high]."""
    return np.log(distribution.cdf(high, *arguments) - distribution.cdf(low, *arguments))


def doublings(start, end):
    """How often a number must be doubled until it is at least `end`."""
    return max(0, int(np.ceil(np.log2(end / start))))


def halvings(start, end):
    """How often a number must be halved until it is below `end`."""
    return 0 if start < end else int(np.floor(np.log2(start / end))) + 1


def switched(v, a, b):
    return np.array([b, v[1], v[2]]) if a > 0 else np.array([v[0], v[1], b])
