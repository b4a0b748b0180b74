def plot_curves(*a):
    pass


def plot_eigenvalues(*a):
    pass
