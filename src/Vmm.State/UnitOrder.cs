namespace Vmm.State;

/// <summary>Units in steps: those of a step depend only on units of earlier ones.</summary>
internal static class UnitOrder
{
    /// <summary>The steps, forwards. Units of a step keep the order in which they were given.</summary>
    /// <exception cref="InvalidOperationException">A unit depends on one that is not there, or on itself.</exception>
    internal static List<List<IMachinePart>> Steps(IReadOnlyList<IMachinePart> parts)
    {
        HashSet<PartId> known = [.. parts.Select(p => p.Id)];
        foreach (IMachinePart part in parts)
        {
            foreach (PartId needed in part.DependsOn)
            {
                if (!known.Contains(needed))
                {
                    throw new InvalidOperationException($"The unit '{part.Id}' depends on '{needed}', which is not there.");
                }
            }
        }

        List<List<IMachinePart>> steps = [];
        List<IMachinePart> left = [.. parts];
        HashSet<PartId> placed = [];
        while (left.Count > 0)
        {
            List<IMachinePart> step = [.. left.Where(p => p.DependsOn.All(placed.Contains))];
            if (step.Count == 0)
            {
                throw new InvalidOperationException(
                    $"The units {string.Join(", ", left.Select(p => p.Id))} depend on each other in a circle.");
            }

            left.RemoveAll(p => p.DependsOn.All(placed.Contains));
            placed.UnionWith(step.Select(p => p.Id));
            steps.Add(step);
        }

        return steps;
    }
}
