"""The lexicon of the offline split: which words speak of which region, and how strongly.

Plain tables, to be read and edited: terms in lower case, separated by commas.
A plural counts as its singular, and the longest term that matches counts.
"""

from .regions import OTHERS

# Weights: 9 decides over everything (where a catheter's tip lies), 4 and 5 decide over a region's
# own anatomy and findings, which have 3; 2 leans to a region, 1 only breaks a tie.
LEXICON: dict[str, dict[int, str]] = {
    "lung": {
        4: """
            air space, airspace, airspace disease, bronchovascular, costophrenic, flattened, flattening,
            focal consolidation, hemothorax, hydropneumothorax, hyperexpanded, hyperinflated, interstitial
            edema, lung apex, lung base, lung parenchyma, lung volume, pleural effusion, pleural
            thickening, pneumothoraces, pneumothorax, pulmonary edema, tuberculous
        """,
        3: """
            aerated, aeration, air trapping, airway, airway disease, alveolar, apical, asbestos,
            aspergilloma, atelectasis, atelectatic, azygos fissure, azygos lobe, b line, basal, basilar,
            biapical, bibasal, bibasilar, bleb, blunted, blunting, bronchial, bronchiectasis, bronchitic,
            bronchogram, bulla, bullous, cavitary, cavitation, cephalization, congestion, consolidation,
            copd, cuffing, cyst, edema, effusion, emphysema, emphysematous, empyema, expanded, fibrosis,
            fibrotic, fissure, granuloma, hemithorax, histoplasmosis, honeycombing, hyperexpansion,
            hyperinflation, hypoaerated, hypoinflated, hypoinflation, hypoventilation, hypoventilatory,
            infiltrate, inflated, inspiration, inspiratory, interstitial, interstitium, kerley, lingula,
            lingular, lobar, lobe, lobectomy, loculated, lung, lung field, meniscus, metastases,
            metastasis, midlung, mucous plugging, nipple shadow, nodule, oligemia, opacification, opacity,
            peribronchial, perihilar, pleura, pleural, pneumatocele, pneumonectomy, pneumonia, pneumonic,
            pneumonitis, pulmonary, pulmonary arterial, pulmonary artery, pulmonary hypertension,
            reticular, reticulonodular, scarring, septal, silicosis, tb, tuberculosis, underinflated,
            vascular congestion, vascular crowding, vascularity, vasculature, volume loss
        """,
        2: """
            apex, apices, aspiration, azygos, base, bronchus, chest clear, chest is clear, crowding,
            density, fluid, granulomatous, hemidiaphragm flattening, hyperlucent, infection, infectious,
            lucent, markings, mass, metastatic, nodular, parenchyma, parenchymal, patchy, retrocardiac,
            scar, streaky, sulci, sulcus, volume, zone
        """,
        1: """
            acute disease, calcified, cardiopulmonary, clear, focal, lucency, noncalcified, thickening
        """,
    },
    "heart": {
        4: """
            cardiac contour, cardiac shadow, cardiac silhouette, cardiac size, cardiomegaly, coronary,
            coronary artery, coronary calcification, heart shadow, heart
            size
        """,
        3: """
            aortic valve, atrial, cardiac, cardiophrenic, cardiothoracic, epicardial fat, heart, left
            atrium, left ventricular, mitral, mitral annular, mitral annulus, myocardial, pericardial,
            pericardial effusion, pericardium, valve, ventricle, ventricular
        """,
        2: "enlarged, enlargement, size",
    },
    "mediastinal": {
        9: "mediastinal clip, mediastinal surgical clip, superior vena cava, svc",
        5: "hilar, lymph",
        4: """
            aorta, aortic, aortic arch, aortic knob, central vascular, central vasculature, hilar contour,
            lymph node, mediastinal, mediastinal contour, mediastinal silhouette, mediastinum,
            paratracheal, thoracic aorta
        """,
        3: """
            adenopathy, aneurysm, aortopulmonary, azygos vein, brachiocephalic, carina, dissection,
            esophageal, esophagus, goiter, great vessel, hila, hilum, innominate, lymphadenopathy, node,
            pneumomediastinum, subcarinal, substernal, superior mediastinum, suprahilar, thymic, thymus,
            thyroid, trachea, tracheal, vascular pedicle, vena cava
        """,
        2: """
            atherosclerosis, atherosclerotic, ectasia, ectatic, tortuosity, tortuous, unfolded, unfolding,
            vascular
        """,
        1: "arch, contour, midline",
    },
    "bone": {
        4: """
            bone, bony, clavicle, degenerative, dextroscoliosis, endplate, fracture, humeral, humerus,
            kyphosis, kyphotic, levoscoliosis, osseous, osseus, osteopenia, osteopenic, osteophyte, rib,
            scoliosis, scoliotic, shoulder, skeletal, skeleton, spinal, spine, spondylosis, sternotomy,
            sternotomy wire, syndesmophyte, vertebra, vertebrae, vertebral
        """,
        3: """
            ac joint, acromioclavicular, alignment, ankle, arthritic, arthritis, arthropathy, blastic,
            bone island, callus, cervical, compression, compression deformity, cortical, costochondral,
            curvature, deformity, demineralization, demineralized, destructive, disc, dish, disk,
            dislocation, facet, femur, fibula, fixation, fusion, glenohumeral, hemangioma, hip,
            hyperostosis, hypertrophic, hypertrophic change, joint effusion, joint space, knee,
            kyphoplasty, laminectomy, listhesis, lordosis, lumbar, lumbosacral, lytic, malleoli,
            malleolus, manubrium, metatarsal, mortise, orthopedic, ossification, osteoarthritic,
            osteoarthritis, osteoporosis, osteoporotic, patella, pectus, pedicle, periosteal, radius,
            rotator cuff, scapula, schmorl, sclerosis, sclerotic, spinous, spur, spurring, sternal,
            sternum, subluxation, suprapatellar, thoracolumbar, thoracotomy, tibia, ulna, vertebroplasty,
            wedging, wrist
        """,
        2: "anterior, height, joint, spondylitic, spondylotic, thorax, wedge",
        1: "acute abnormality, age, thoracic",
    },
    OTHERS: {
        4: """
            abdomen, abdominal, aicd, are excluded, axilla, axillary, bowel, breast, cardiac device,
            cardiac monitor, catheter, chest tube, chest wall, cholecystectomy, clip, colon,
            defibrillator, diaphragm, diaphragmatic, electrode, endotracheal, enteric, evaluation of,
            eventration, foreign body, free air, gallbladder, gallstone, gastric, gastroesophageal,
            habitus, hemidiaphragm, hepatic, hernia, hiatal hernia, hiatus hernia, icd, intraperitoneal,
            is excluded, jewelry, lead, limited evaluation, limits evaluation, liver, mastectomy, monitor,
            nipple, pacemaker, pacer, picc, piercing, pneumoperitoneum, port, portacath, quadrant, soft
            tissue, spleen, splenic, stomach, subdiaphragmatic, surgical clip, tip, tracheostomy, tube,
            upper abdomen
        """,
        3: """
            artifact, artifactual, ascites, atrium, bullet, button, bypass, cabg, calculi, calculus,
            cavoatrial, cavoatrial junction, chin, coil, device, dialysis, epigastric, epiglottis, feeding
            tube, filter, gas, generator, hardware, ileus, implant, kidney, laryngeal, larynx, limited,
            line, loop, lordotic, nasogastric, neck, pellet, peritoneal, projectile, prosthesis, recorder,
            renal, right atrium, shrapnel, shunt, skin, skin fold, staple, stent, stimulator,
            subcutaneous, surgical, suture, tips, wire
        """,
        2: """
            comparison, exam, examination, film, image, patient, projection, radiograph, rotated,
            rotation, technique, view
        """,
    },
}

# Terms that the gold split keeps with another region where they are named beside it:
# term -> (the regions named beside it, the region that takes it).
COMPANY: dict[str, tuple[set[str], str]] = {
    "vascularity": ({"heart", "mediastinal"}, "mediastinal"),
    "soft tissue": ({"bone"}, "bone"),
}
